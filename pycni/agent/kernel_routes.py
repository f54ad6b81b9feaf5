# SPDX-License-Identifier: Apache-2.0
"""Follows the kernel's routes, neighbours and links: keeps the table `nexthops` true, and vouches
for it a few seconds ahead (node/next_hops.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from pycni import locks
from pycni.agent.loops import Run
from pycni.agent.rounds import Rest
from pycni.cluster import IPAddress
from pycni.kernel.fib import Fib
from pycni.node import next_hops
from pycni.node.next_hops import Copy
from pycni.settings import Settings

RENEWAL = 1.0
"""Seconds between two renewals of the lease."""
CONFIRMATION = 5.0
"""Seconds between two looks at which next hops are in use."""
REVIEW = 30.0
"""Seconds until the kernel is asked for everything again: a path's MTU changes without an event."""


class Waker:
    """Tells `follow`, from another thread, that there are other VTEPs now."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def wake(self) -> None:
        os.eventfd_write(self._fd, 1)

    def take(self) -> bool:
        """Whether it was woken since the last call."""
        try:
            return bool(os.eventfd_read(self._fd))
        except BlockingIOError:
            return False


def follow(
    settings: Settings,
    run: Run,
    *,
    waker: Waker,
    used: Callable[[Iterable[IPAddress]], object] = lambda _: None,
) -> None:
    """Until the agent stops, in the node's namespace; tells `used` the VTEPs of the nodes that
    packets were sent to. Raises PycniError or OSError."""
    with Fib() as fib:
        copy, rest = Copy(fib), Rest()
        review = confirmation = 0.0
        while not run.stopping:
            now = time.monotonic()
            changes = fib.changes()
            # no setup may replace the maps meanwhile
            with locks.network_lock(settings.run_dir, shared=True):
                if waker.take() or changes is None or now >= review:
                    next_hops.review(settings, copy)
                    review = now + REVIEW
                elif copy.take_in(changes):
                    next_hops.write(settings, copy)
                if now >= confirmation:
                    used(next_hops.confirm(settings, copy))
                    confirmation = now + CONFIRMATION
                next_hops.vouch(settings)
            run.well()
            run.wait(rest.due())  # events without end must not be work without end
            fib.wait(RENEWAL, waker.fileno())
