# SPDX-License-Identifier: Apache-2.0
"""What a store has just read, for the next step of whoever asked: a setup lists all nodes, and then
registers one. To list 5,000 takes seconds of an API server that all nodes may ask at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

LASTS = 10.0
"""Seconds. Others may register meanwhile, as they may between any list and any write."""

T = TypeVar("T")


class Recent(Generic[T]):
    """One value, which can be taken once, while it is fresh. One thread at a time may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: tuple[T, float] | None = None

    def keep(self, value: T) -> T:
        """Keep it in the place of what was kept before; returns it."""
        self._kept = value, self._clock()
        return value

    def take(self) -> T | None:
        """What is kept, if it is fresh. It is not kept any more."""
        kept, self._kept = self._kept, None
        if kept is None or self._clock() - kept[1] > LASTS:
            return None
        return kept[0]
