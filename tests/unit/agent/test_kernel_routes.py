# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/kernel_routes.py: when the kernel is asked, and what is written and vouched for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pycni.agent import kernel_routes
from pycni.agent.kernel_routes import Waker
from pycni.kernel.fib import NeighbourChange, OtherChange
from unit.agent.runs import OneRun

NOTHING: list[object] = []
ROUTE = [OtherChange()]
LOST = None


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Follow a kernel that tells of these changes, a list each second; gives what was done."""

    def run(*told, wake_at=()):
        one, waker, done = OneRun(), Waker(), []
        waiting = list(enumerate(told))
        clock = SimpleNamespace(monotonic=lambda: 1000.0 + len(told) - len(waiting))

        class Fib:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def changes(self):
                second, changes = waiting.pop(0)
                if second in wake_at:
                    waker.wake()
                if not waiting:
                    one.end()
                return changes

            def wait(self, seconds, *others):
                assert seconds < kernel_routes.next_hops.LEASE / 2
                assert others == (waker.fileno(),)

        class Copy:
            def __init__(self, _):
                pass

            def take_in(self, changes):
                return any(isinstance(change, OtherChange) for change in changes)

        monkeypatch.setattr(kernel_routes, "Fib", Fib)
        monkeypatch.setattr(kernel_routes, "Copy", Copy)
        monkeypatch.setattr(kernel_routes, "time", clock)
        for verb in ("review", "write", "confirm", "vouch"):
            monkeypatch.setattr(
                kernel_routes.next_hops, verb, lambda *_, verb=verb: done.append(verb)
            )
        kernel_routes.follow(SimpleNamespace(run_dir=tmp_path), one, waker=waker)
        assert one.rounds == len(told)
        return done

    return run


def test_at_first_everything_is_asked_for_and_vouched_for(follow) -> None:
    assert follow(NOTHING) == ["review", "confirm", "vouch"]


def test_the_table_is_vouched_for_in_every_round(follow) -> None:
    assert follow(*[NOTHING] * 4)[3:] == ["vouch"] * 3


def test_what_matters_is_written_and_nothing_else(follow) -> None:
    neighbour = [NeighbourChange(7, "192.0.2.1", None)]

    assert follow(NOTHING, neighbour, ROUTE)[3:] == ["vouch", "write", "vouch"]


def test_after_lost_events_everything_is_asked_for(follow) -> None:
    assert follow(NOTHING, LOST)[3:] == ["review", "vouch"]


def test_other_vteps_are_asked_for_at_once(follow) -> None:
    assert follow(NOTHING, NOTHING, wake_at=[1])[3:] == ["review", "vouch"]


def test_everything_is_asked_for_again_and_use_confirmed_now_and_then(follow) -> None:
    seconds = int(kernel_routes.REVIEW)

    done = follow(*[NOTHING] * (seconds + 1))

    assert done.count("review") == 2
    assert done.count("confirm") == 1 + seconds / kernel_routes.CONFIRMATION


def test_a_waker_wakes_once() -> None:
    waker = Waker()

    waker.wake()
    waker.wake()

    assert waker.take()
    assert not waker.take()
