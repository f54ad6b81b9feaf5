# SPDX-License-Identifier: Apache-2.0
"""A limit on log lines that others can cause: a pod, or a writer of the store.

Pure but for the clock. One line about a subject says what happens; a thousand hide what else does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL = 60.0
"""Seconds."""


def mention(left_out: int) -> str:
    """The end of a log line: how many were left out before it, if any."""
    return f" lines_left_out={left_out}" if left_out else ""


class LineLimit:
    """At most `lines` lines about one subject, and about at most `subjects`, in each INTERVAL.

    Used by one thread. Its memory is bounded by `subjects`.
    """

    def __init__(
        self,
        *,
        lines: int = 1,
        subjects: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines, self._subjects, self._clock = lines, subjects, clock
        self._begun: dict[str, float] = {}
        self._written: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def take(self, subject: str) -> int | None:
        """None: leave this line out. Else how many were left out before it."""
        now = self._clock()
        if subject in self._begun and now - self._begun[subject] < INTERVAL:
            if self._written[subject] < self._lines:
                self._written[subject] += 1
                return self._left_out.pop(subject, 0)
            self._left_out[subject] = self._left_out.get(subject, 0) + 1
            return None
        if subject not in self._begun and not self._make_room(now):
            return None
        self._begun[subject], self._written[subject] = now, 1
        return self._left_out.pop(subject, 0)

    def _make_room(self, now: float) -> bool:
        """Forget subjects whose interval is over, if there are too many."""
        if len(self._begun) < self._subjects:
            return True
        for subject in [one for one, begun in self._begun.items() if now - begun >= INTERVAL]:
            for table in (self._begun, self._written, self._left_out):
                table.pop(subject, None)
        return len(self._begun) < self._subjects
