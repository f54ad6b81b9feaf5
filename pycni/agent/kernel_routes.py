# SPDX-License-Identifier: Apache-2.0
"""Follows the kernel's routes, neighbours and links: keeps the table `nexthops` true, and vouches
for it a few seconds ahead (node/next_hops.py). What the paths carry is followed with them
(node/path_mtus.py)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto

from pycni import locks
from pycni.agent.budget import Rest
from pycni.agent.loops import Run
from pycni.cluster import IPAddress
from pycni.files import mark_of
from pycni.kernel.fib import Fib
from pycni.kernel.icmp_errors import IcmpErrors
from pycni.kernel.tunnel_sockets import TunnelSockets
from pycni.logfmt import quoted
from pycni.node import next_hops, path_mtus
from pycni.node.next_hops import Copy
from pycni.node.record import Node, record_path
from pycni.settings import Settings
from pycni.stores import NodeRecord

RENEWAL = 2.0
"""Seconds between two renewals of the lease, which is good for next_hops.LEASE."""
CONFIRMATION = 5.0
"""Seconds between two looks at which next hops are in use."""
REVIEW = 30.0
"""Seconds until the kernel is asked again without an event: a path's MTU expires without one."""
SETTLING = 0.02
"""Seconds after an ICMP error, in which the kernel takes it in and others like it arrive: raw
sockets get it first (ip_protocol_deliver_rcu, net/ipv4/ip_input.c)."""

Look = Callable[[Settings, Copy], None]

log = logging.getLogger(__name__)


class News(Enum):
    """What may be different."""

    NOTHING = auto()
    NODES = auto()
    EVERYTHING = auto()


class Waker:
    """Tells `follow`, from other threads, what is different now."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._everything = False

    def fileno(self) -> int:
        return self._fd

    def wake(self) -> None:
        """Anything may be: a setup was done."""
        self._everything = True
        os.eventfd_write(self._fd, 1)

    def tell_nodes(self) -> None:
        """There are other nodes."""
        os.eventfd_write(self._fd, 1)

    def take(self) -> News:
        """What was told since the last call."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return News.NOTHING
        everything, self._everything = self._everything, False
        return News.EVERYTHING if everything else News.NODES


def follow(
    settings: Settings,
    run: Run,
    *,
    waker: Waker,
    others: Callable[[], Iterable[NodeRecord]],
    used: Callable[[Iterable[IPAddress]], object] = lambda _: None,
) -> None:
    """Until the agent stops, in the node's namespace; tells `used` the VTEPs of the nodes that
    packets were sent to. `others` gives the other nodes now. Raises PycniError or OSError."""
    with Fib() as fib, hearing_errors() as errors, Learning() as learning:
        copy, rest = Copy(fib, others), Rest(run.budget)
        narrowed, mark = False, None
        review = confirmation = 0.0
        while not run.stopping:
            now = time.monotonic()
            changes = fib.changes()
            narrower = _take_errors(errors, settings, run)
            # no setup may replace the maps meanwhile
            with locks.network_lock(settings.run_dir, shared=True):
                news = waker.take()
                is_review, before = now >= review, mark
                mark = mark_of(record_path(settings))
                look: Look | None = next_hops.review
                if changes is None or news is News.EVERYTHING or not review or mark != before:
                    is_review = True  # a setup by somebody else writes the record
                else:
                    differs = copy.take_in(changes) | copy.take_again(narrower)
                    look = _look(news, is_review=is_review, differs=differs)
                if is_review:
                    learning.follow(Node.load_if_any(settings))
                if look is not None:
                    look(settings, copy)
                    if is_review or copy.narrow or narrowed:
                        narrowed = path_mtus.write(settings, copy.narrow)
                    review = now + REVIEW if is_review else review
                if now >= confirmation:
                    used(next_hops.confirm(settings, copy))
                    confirmation = now + CONFIRMATION
                next_hops.vouch(settings)
            run.well()
            run.wait(rest.due())  # events without end must not be work without end
            fib.wait(RENEWAL, waker.fileno(), *(errors.filenos() if errors else ()))


def _look(news: News, *, is_review: bool, differs: bool) -> Look | None:
    """How much to look at, and to write; None: nothing is different."""
    if is_review:
        return next_hops.review_some
    if news is News.NODES:
        return next_hops.follow_nodes
    return next_hops.write if differs else None


@contextmanager
def hearing_errors() -> Iterator[IcmpErrors | None]:
    """The ICMP errors of this namespace; None if this process may not hear them."""
    try:
        errors = IcmpErrors()
    except PermissionError as error:
        log.warning("path MTUs are learnt late seconds=%d error=%s to_do=%s", REVIEW,
                    quoted(str(error)), quoted("give the agent CAP_NET_RAW"))  # fmt: skip
        yield None
        return
    with errors:
        yield errors


class Learning:
    """Has the kernel learn what the paths carry by which this node sends IPIP; owns the sockets for
    that."""

    def __init__(self) -> None:
        self._sockets = ExitStack()
        self._version = 0

    def __enter__(self) -> Learning:
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    def follow(self, node: Node | None) -> None:
        """Make the sockets what the node needs, by its record. Without CAP_NET_RAW there are none,
        and `hearing_errors` has said so. Raises OSError."""
        wanted = node.vtep.version if node is not None and node.ipip else 0
        if wanted == self._version:
            return
        self._sockets.close()
        if wanted:
            with suppress(PermissionError):
                self._sockets.enter_context(TunnelSockets(wanted))
        self._version = wanted


def _take_errors(errors: IcmpErrors | None, settings: Settings, run: Run) -> set[IPAddress]:
    """The nodes to which the path may be narrower now."""
    found = errors.take(settings.port) if errors is not None else set()
    if errors is not None and found:
        run.wait(SETTLING)
        found |= errors.take(settings.port)
    return found
