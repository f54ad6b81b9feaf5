# SPDX-License-Identifier: Apache-2.0
"""Forgetting the connections of addresses, for many callers together, after their answers.

To forget takes 20 ms and more: the kernel looks at its whole table. A DEL need not wait for that,
since the addresses that it gives back rest (pods/resting.py). Whoever takes an address that still
rests has its connections forgotten at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from pycni.cluster import IPAddress
from pycni.kernel import conntrack

SHARE = 10
"""The work takes at most this part of the time, one tenth, however many pods end."""
LONGEST_WAIT = 2.0
"""Seconds."""

log = logging.getLogger(__name__)


class Forgetting:
    """Addresses whose connections are to be forgotten. Any thread may use it, in one namespace."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._turn = threading.Lock()
        self._working = threading.Lock()
        self._waiting: set[IPAddress] = set()
        self._next = 0.0

    def soon(self, addresses: Collection[IPAddress]) -> None:
        """Leave the addresses to the next `work`."""
        with self._changing:
            self._waiting |= set(addresses)

    def now(self, addresses: Collection[IPAddress]) -> None:
        """Forget at once. When this returns, no `work` has these addresses any more."""
        with self._working:
            with self._changing:
                self._waiting -= set(addresses)
            _forget(addresses)

    def work(self) -> None:
        """Forget what waits: in one go, if several threads come here at once."""
        if not self._waiting:
            return
        with self._turn:
            time.sleep(max(0.0, self._next - time.monotonic()))
            with self._working:
                with self._changing:
                    addresses, self._waiting = self._waiting, set()
                begin = time.monotonic()
                if addresses:
                    _forget(addresses)
                took = time.monotonic() - begin
            self._next = time.monotonic() + min((SHARE - 1) * took, LONGEST_WAIT)


def _forget(addresses: Collection[IPAddress]) -> None:
    """A kernel without ctnetlink is no reason to fail: the addresses rest, at least."""
    try:
        conntrack.forget(addresses)
    except OSError as error:
        log.warning("connections not forgotten addresses=%s error=%s",
                    ",".join(map(str, sorted(addresses, key=str))), error)  # fmt: skip
