# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/rounds.py: events are followed together, and at a bounded cost."""

from __future__ import annotations

import errno

import pytest

from pycni.agent import rounds
from pycni.agent.rounds import LONGEST_REST, SHARE, Rest
from pycni.kernel.event_socket import Event
from unit.agent.runs import OneRun

ONE, OTHER = Event(b"one"), Event(b"other")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("share", [SHARE, SHARE / 2])
def test_who_works_rests_so_long_that_it_keeps_to_its_share(share: float) -> None:
    clock = Clock()
    rest = Rest(clock, share=share)
    clock.now += 0.01

    assert rest.due() == pytest.approx(0.01 / share - 0.01)
    assert rest.due() == 0.0


def test_a_rest_has_an_end() -> None:
    clock = Clock()
    rest = Rest(clock)
    clock.now += 100.0

    assert rest.due() == LONGEST_REST


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
