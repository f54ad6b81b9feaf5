# SPDX-License-Identifier: Apache-2.0
"""The processor time that an agent's loops may use for what others make happen, all together.

Events without end must not become work without end. One event concerns several loops, so what each
of them may use would add up. Who has worked rests until what all of them used is paid for, and what
happens meanwhile waits in the kernel, to be read as one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SHARE = 0.03
"""Of one processor, in the long run."""
BURST = 0.03
"""Seconds of processor time that need no rest, if little was used before: a few events in a row, as
an ADD makes them, delay nothing."""
LONGEST_REST = 1.0
"""Seconds. A round that costs more than its share of this exceeds it: rather that than to be
late."""


class Budget:
    """What the loops of one agent used together. Any thread may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._paid = clock() - BURST / SHARE
        """When everything that was used is paid for, in seconds of the clock."""

    def charge(self, used: float) -> float:
        """Seconds to rest after `used` seconds of processor time."""
        with self._lock:
            now = self._clock()
            since = max(self._paid, now - BURST / SHARE)
            self._paid = min(since + used / SHARE, now + LONGEST_REST)
            return max(0.0, self._paid - now)


class Rest:
    """How long the calling thread has to rest, by the processor time that it used."""

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.thread_time) -> None:
        self._budget = budget
        self._clock = clock
        self._before = clock()

    def due(self) -> float:
        """Seconds, for what was used since the last call."""
        now = self._clock()
        used, self._before = now - self._before, now
        return self._budget.charge(used)
