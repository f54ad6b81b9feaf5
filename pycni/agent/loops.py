# SPDX-License-Identifier: Apache-2.0
"""Loops: work that follows something until the agent stops, each in a thread of its own.

A loop that fails is begun again after a back-off. The log has one line when a loop begins to fail,
one for each other reason for which it fails, and one when it is well again: never one for each try.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from loader.errors import LoaderError
from pycni.agent.budget import Budget
from pycni.backoff import Backoff
from pycni.errors import PycniError
from pycni.logfmt import quoted

STEADY = 10.0
"""Seconds for which a loop must have been well, so that its next failure is taken for a new one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loop:
    """A name and its work, which returns when `Run.stopping`, and raises if it fails."""

    name: str
    follow: Callable[[Run], None]
    longest_wait: float
    """Seconds: the longest wait between two tries (backoff.py)."""


class Run:
    """What a loop's work knows of the agent, and tells it. Used by the loop's thread only."""

    def __init__(self, loop: Loop, stop: threading.Event, budget: Budget) -> None:
        self.stop = stop
        self.budget = budget
        self._loop = loop
        self._backoff = Backoff(cap=loop.longest_wait)
        self._problems: set[str] = set()
        """Why it failed since it was well."""
        self._failing_since = 0.0
        self._tries = 0
        self._well_since: float | None = None

    @property
    def name(self) -> str:
        """Of the loop."""
        return self._loop.name

    @property
    def stopping(self) -> bool:
        return self.stop.is_set()

    def wait(self, seconds: float) -> None:
        """Until then, or until the agent stops."""
        self.stop.wait(seconds)

    def well(self) -> None:
        """Say that what is followed was read and done. May be called any number
        of times, and must be called after the first round."""
        if self._well_since is None:
            self._well_since = time.monotonic()
        if self._problems:
            log.info("%s is back loop=%s failed_for_s=%.1f tries=%d", self._loop.name,
                     self._loop.name, time.monotonic() - self._failing_since,
                     self._tries)  # fmt: skip
            self._problems, self._tries = set(), 0

    def keep(self) -> None:
        """Do the loop's work again and again, until the agent stops."""
        while not self.stopping:
            try:
                self._loop.follow(self)
            except (PycniError, LoaderError) as error:
                self._failed(f"{error.message}: {error.details}" if error.details
                             else error.message)  # fmt: skip
            except OSError as error:
                self._failed(str(error))
            except Exception as error:
                self._failed(repr(error), bug=error)
            else:
                self._failed("it ended")

    def _failed(self, problem: str, *, bug: Exception | None = None) -> None:
        if self.stopping:
            return
        now = time.monotonic()
        if self._well_since is not None and now - self._well_since >= STEADY:
            self._backoff.reset()
        self._well_since = None
        delay = self._backoff.delay()
        self._tries += 1
        if not self._problems:
            self._failing_since = now
        level = logging.DEBUG if problem in self._problems else logging.WARNING
        log.log(level, "loop failed loop=%s error=%s again_in_s=%.1f", self._loop.name,
                quoted(problem), delay, exc_info=bug)  # fmt: skip
        self._problems.add(problem)
        self.wait(delay)


def start(loops: Iterable[Loop], stop: threading.Event) -> list[threading.Thread]:
    """Keep each loop going until `stop`, in a thread that does not outlive the process."""
    budget = Budget()
    threads = [
        threading.Thread(target=Run(loop, stop, budget).keep, name=loop.name, daemon=True)
        for loop in loops
    ]
    for thread in threads:
        thread.start()
    return threads
