# SPDX-License-Identifier: Apache-2.0
"""How long to wait before something that failed is tried again: back-off with full jitter.

Each wait is a random time between zero and a bound. The bound starts at `base` and doubles with
each failure, up to `cap`. So agents that lose the same store at the same moment do not all come
back at the same moment. Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

Pure: it computes a time, and never sleeps.
"""

from __future__ import annotations

import random
from collections.abc import Callable

BASE = 0.2
"""Seconds: the longest first wait."""
CAP = 30.0
"""Seconds: the longest wait of all."""


class Backoff:
    """The waits of one thing that is tried again and again. Used by one thread."""

    def __init__(
        self,
        *,
        base: float = BASE,
        cap: float = CAP,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`uniform(low, high)` gives a random number between the two."""
        self._base = base
        self._cap = cap
        self._uniform = uniform
        self._bound = min(base, cap)

    def delay(self) -> float:
        """Seconds to wait after one more failure."""
        bound = self._bound
        self._bound = min(self._cap, bound * 2)
        return self._uniform(0.0, bound)

    def reset(self) -> None:
        """Say that it worked: the next wait is a short one again."""
        self._bound = min(self._base, self._cap)
