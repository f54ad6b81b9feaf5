# SPDX-License-Identifier: Apache-2.0
"""Forgetting the connections of addresses, for many callers together, after their answers.

A DEL need not wait for it, since the addresses that it gives back rest (pods/resting.py). What is
cheap is done at once. A listing of the whole table is not, and it holds up the DELs of others, so
there is one every few seconds at most. Whoever takes an address that still rests has its
connections forgotten before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from pycni.cluster import IPAddress
from pycni.kernel import conntrack
from pycni.logfmt import quoted

INTERVAL = 3.0
"""Seconds between two listings, at least."""
SHARE = 20
"""Listings take at most this part of a processor: a twentieth."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Forgetting:
    """Addresses whose connections are to be forgotten, in one network namespace.

    Any thread may add some; one works.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._working = threading.Lock()
        self._wake = threading.Event()
        self._waiting: set[IPAddress] = set()
        self._listed: set[IPAddress] = set()
        """Those that wait for a listing."""
        self._next = 0.0

    def soon(self, addresses: Collection[IPAddress]) -> None:
        """Leave the addresses to the next `work`."""
        with self._changing:
            self._waiting |= set(addresses)
            self._wake.set()

    def now(self, addresses: Collection[IPAddress]) -> None:
        """Forget at once. When this returns, no `work` has these addresses any more."""
        with self._working:
            with self._changing:
                self._waiting -= set(addresses)
                self._listed -= set(addresses)
            _logged(conntrack.forget, addresses)

    def wait(self) -> None:
        """Until there is work."""
        self._wake.wait()

    def work(self) -> None:
        """Forget what waits. May wait for seconds, between two listings."""
        self._forget_each()
        if self._listed:
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._list()

    def _forget_each(self) -> None:
        with self._working:
            with self._changing:
                addresses, self._waiting = self._waiting, set()
                self._wake.clear()
            left = _logged(conntrack.forget_each, addresses) if addresses else ()
            with self._changing:
                self._listed |= set(left or ())

    def _list(self) -> None:
        with self._working:
            with self._changing:
                addresses, self._listed = self._listed, set()
            begin, busy = time.monotonic(), time.thread_time()
            _logged(conntrack.forget_listed, addresses)
            took = time.thread_time() - busy
        self._next = max(begin + INTERVAL, time.monotonic() + (SHARE - 1) * took)


def _logged(
    forget: Callable[[Collection[IPAddress]], T], addresses: Collection[IPAddress]
) -> T | None:
    """A kernel without ctnetlink is no reason to fail: the addresses rest, at least."""
    try:
        return forget(addresses)
    except OSError as error:
        log.warning("connections not forgotten addresses=%s error=%s",
                    quoted(",".join(map(str, sorted(addresses, key=str)))),
                    quoted(error))  # fmt: skip
        return None
