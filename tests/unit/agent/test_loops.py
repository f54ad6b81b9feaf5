# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/loops.py: a loop that fails is begun again, and the log says so once."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from loader.errors import AttachError
from pycni.agent import loops
from pycni.agent.budget import Budget
from pycni.agent.loops import Loop, Run, start
from pycni.backoff import Backoff
from pycni.errors import StoreError

LONGEST_WAIT = 4.0


class World:
    """A loop whose work does one thing after the other, and a clock that only waits move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        monkeypatch.setattr(loops, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(loops, "Backoff", Longest)

    def keep(self, *outcomes: object) -> None:
        """Each is an error to raise, seconds to be well for before the next, or None: to end."""
        waiting = list(outcomes)

        def follow(run: Run) -> None:
            while waiting:
                outcome = waiting.pop(0)
                if isinstance(outcome, Exception):
                    raise outcome
                if outcome is None:
                    return
                run.well()
                self.now += float(str(outcome))
            run.stop.set()

        run = Run(Loop("store", follow, LONGEST_WAIT), threading.Event(), Budget())
        run.wait = self._wait  # type: ignore[method-assign]
        run.keep()

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Longest(Backoff):
    """Every wait is the longest that it may be."""

    def __init__(self, *, cap: float) -> None:
        super().__init__(base=1.0, cap=cap, uniform=lambda _, high: high)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> World:
    caplog.set_level(logging.INFO)
    return World(monkeypatch)


def test_a_failed_loop_is_begun_again_after_longer_and_longer_waits(world: World) -> None:
    world.keep(*[StoreError("no answer")] * 4, 1)

    assert world.waits == [1.0, 2.0, 4.0, 4.0]


def test_a_failure_is_said_once_with_what_and_when_and_so_is_its_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.keep(*[StoreError("no answer")] * 3, 1, 1)

    assert caplog.messages == [
        'loop failed loop=store error="no answer" again_in_s=1.0',
        "store is back loop=store failed_for_s=7.0 tries=3",
    ]


def test_another_failure_is_another_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    refused = StoreError("refused", details="by whom")

    world.keep(StoreError("no answer"), refused, refused, OSError(5, "broken"), AttachError("x"), 0)

    said = [line.partition(" error=")[2].partition(" again")[0] for line in caplog.messages[:-1]]
    assert said == ['"no answer"', '"refused: by whom"', '"[Errno 5] broken"', "x"]


def test_a_bug_is_logged_with_its_traceback_and_the_loop_goes_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.keep(ZeroDivisionError("a bug"), ZeroDivisionError("a bug"), 1)

    assert caplog.text.count("Traceback") == 1
    assert world.waits == [1.0, 2.0]


def test_work_that_ends_by_itself_is_begun_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.keep(None, 1)

    assert 'error="it ended"' in caplog.messages[0]


def test_a_loop_that_was_well_for_long_begins_with_short_waits_again(world: World) -> None:
    lost = StoreError("lost")

    world.keep(lost, lost, loops.STEADY, lost, 1)

    assert world.waits == [1.0, 2.0, 1.0]


def test_a_loop_that_is_well_for_a_moment_only_is_tried_less_and_less(world: World) -> None:
    lost = StoreError("lost")

    world.keep(lost, 0.1, lost, 0.1, lost, 1)

    assert world.waits == [1.0, 2.0, 4.0]


def test_an_error_while_the_agent_stops_is_no_failure(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def follow(run: Run) -> None:
        run.stop.set()
        raise StoreError("closed")

    Run(Loop("store", follow, LONGEST_WAIT), threading.Event(), Budget()).keep()

    assert caplog.messages == []
    assert world.waits == []


def test_each_loop_has_a_thread_that_stops_with_the_agent() -> None:
    stop, begun = threading.Event(), threading.Barrier(3)

    def follow(run: Run) -> None:
        begun.wait(10)
        run.wait(60)
        assert run.stopping

    threads = start([Loop("one", follow, 1.0), Loop("other", follow, 1.0)], stop)
    begun.wait(10)
    stop.set()
    for thread in threads:
        thread.join(10)

    assert [thread.name for thread in threads] == ["one", "other"]
    assert not any(thread.is_alive() for thread in threads)
