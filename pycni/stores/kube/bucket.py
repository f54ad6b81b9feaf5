# SPDX-License-Identifier: Apache-2.0
"""A bound on how often an agent asks the Kubernetes API: a token bucket.

Thousands of agents have one API server. A bug that makes each of them ask all the time must not
take it down, so a bucket that was never full for SUSPICIOUS seconds fills slowly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

RATE = 5.0
"""Requests per second in the long run."""
SLOW_RATE = 0.2
"""As RATE, for who asks all the time."""
SUSPICIOUS = 60.0
"""Seconds without a pause after which SLOW_RATE applies."""
BURST = 10.0
"""Requests at once."""


class Bucket:
    """Safe to use from several threads. `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = BURST
        self._filled_at = clock()
        self._full_at = clock()

    def take(self) -> float:
        """Take a token that is there, or that will be; returns the seconds until then."""
        with self._lock:
            now = self._clock()
            rate = SLOW_RATE if now - self._full_at > SUSPICIOUS else RATE
            self._tokens = min(BURST, self._tokens + (now - self._filled_at) * rate)
            self._filled_at = now
            if self._tokens >= BURST:
                self._full_at = now
            self._tokens -= 1.0
            return max(0.0, -self._tokens / rate)

    def give_back(self) -> None:
        """The undo of `take`, for a token that nobody waits for."""
        with self._lock:
            self._tokens += 1.0


_buckets: dict[object, Bucket] = {}
_lock = threading.Lock()


def bucket_of(servers: object) -> Bucket:
    """The one bucket that this process has for these servers."""
    with _lock:
        return _buckets.setdefault(servers, Bucket())
