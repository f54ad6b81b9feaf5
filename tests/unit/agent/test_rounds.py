# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/rounds.py: events are followed together, and at a bounded cost."""

from __future__ import annotations

import errno

import pytest

from pycni.agent import rounds
from pycni.kernel.event_socket import Event
from unit.agent.runs import OneRun

ONE, OTHER = Event(b"one"), Event(b"other")


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch):
    """Follow what `take` gives: lists, None for lost events, an error; "" for a wait in vain."""

    def run(*told):
        waiting, done, one = list(told), [], OneRun()

        class Socket:
            def wait(self, _):
                if waiting[0] != "":
                    return True
                waiting.pop(0)
                if not waiting:
                    one.end()
                return False

            def take(self):
                found = waiting.pop(0)
                if not waiting:
                    one.end()
                if isinstance(found, OSError):
                    raise found
                return found

        monkeypatch.setattr(rounds, "REST", 0.0)
        rounds.follow(
            Socket(), one, everything=lambda: done.append("all"), some=lambda few: done.append(few)
        )
        return done

    return run


def test_first_everything_then_what_happens(follow) -> None:
    assert follow([ONE], [ONE, OTHER], []) == ["all", [ONE], [ONE, OTHER]]


def test_everything_again_after_events_were_lost_with_one_line(follow, caplog) -> None:
    assert follow(None, [ONE], None, None) == ["all", "all", [ONE], "all", "all"]
    assert len(caplog.messages) == 1


def test_nothing_happens_and_nothing_is_done(follow) -> None:
    assert follow("", "") == ["all"]


def test_an_error_is_for_the_loop(follow) -> None:
    with pytest.raises(OSError, match="broken"):
        follow(OSError(errno.EBADF, "broken"))
