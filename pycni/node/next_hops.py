"""The next hop of every other node, as the kernel has it: the `nexthops` table, for packets that
our programs encapsulate themselves.

The kernel stays the authority. This module only copies what it would do, when it says that
something changed, and vouches for the copy a few seconds ahead (`self.fresh_until`): when nobody
vouches any more, or there is no entry, the programs hand packets to the metadata device, and the
kernel decides for each again. So a dead agent costs speed, never a path.

No neighbour is ever resolved here: the first packet to a node goes through the kernel, which asks
for the neighbour, and what it learns arrives as an event. In return the programs mark the entries
they use, and those the kernel is told of as used, so that it confirms them as it would its own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pycni import cluster, locks
from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.dataplane.maps import NextHop
from pycni.dataplane.reconcile import apply, plan
from pycni.kernel.fib import (
    Change,
    Fib,
    Link,
    NeighbourChange,
    Neighbours,
    OtherChange,
)
from pycni.kernel.fib import Path as Way
from pycni.node.record import Node
from pycni.settings import Settings

LEASE = 5.0
"""Seconds that next hops hold after the agent was last heard of."""
RENEWAL = 1.0
"""Seconds between two renewals of the lease."""
CONFIRMATION = 5.0
"""Seconds between two looks at which next hops are in use."""
REVIEW = 30.0
"""Seconds until everything is asked for again: a path's MTU changes without an event."""

log = logging.getLogger(__name__)


class Waker:
    """Tells `follow`, from another thread, that there are other nodes now."""

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


class Copy:
    """The kernel's tables as far as packets to other nodes need them."""

    def __init__(self, fib: Fib) -> None:
        self._fib = fib
        self._vtep: IPAddress | None = None
        self._others: tuple[IPAddress, ...] = ()
        self._paths: dict[IPAddress, Way] = {}
        self._links: dict[int, Link] = {}
        self._neighbours: Neighbours = {}
        self.written: dict[IPAddress, NextHop] = {}

    def take_all(self, vtep: IPAddress, others: Iterable[IPAddress]) -> None:
        """Ask for everything."""
        self._vtep, self._others = vtep, tuple(others)
        self._neighbours = self._fib.neighbours()
        self.take_paths()

    def take_paths(self) -> None:
        """Ask for routes and links."""
        if self._vtep is not None:
            self._paths = self._fib.paths(self._others, self._vtep)
            self._links = self._fib.links({path.ifindex for path in self._paths.values()})

    def take_in(self, changes: Iterable[Change]) -> bool:
        """Follow events; whether any could matter."""
        matters = stale = False
        for change in changes:
            match change:
                case NeighbourChange(ifindex, address, None):
                    matters |= self._neighbours.pop((ifindex, address), None) is not None
                case NeighbourChange(ifindex, address, mac):
                    matters |= self._neighbours.get((ifindex, address)) != mac
                    self._neighbours[ifindex, address] = str(mac)
                case OtherChange(ifindex):
                    stale |= not ifindex or ifindex in self._links
        if stale:
            self.take_paths()
        return matters or stale

    @property
    def wanted(self) -> dict[IPAddress, NextHop]:
        return wanted(self._paths, self._links, self._neighbours)

    def path(self, vtep: IPAddress) -> Way | None:
        return self._paths.get(vtep)


def wanted(
    paths: Mapping[IPAddress, Way], links: Mapping[int, Link], neighbours: Neighbours
) -> dict[IPAddress, NextHop]:
    """The entries that `nexthops` shall have. Pure.

    A node is left to the kernel when the way to it is no Ethernet, or down, or when the neighbour
    is not known.
    """
    found: dict[IPAddress, NextHop] = {}
    for vtep, path in paths.items():
        link = links.get(path.ifindex)
        mac = neighbours.get((path.ifindex, path.neighbour))
        if link is not None and link.up and link.mac and mac is not None:
            mtu = min(link.mtu, path.mtu or link.mtu) - cluster.VXLAN_OVERHEAD[vtep.version]
            found[vtep] = NextHop(path.ifindex, mtu, mac, link.mac)
    return found


def follow(settings: Settings, stop: threading.Event, waker: Waker) -> None:
    """Keep the table true until `stop`. Raises PycniError or OSError; start again after that."""
    with Fib() as fib:
        fib.subscribe()
        copy = Copy(fib)
        review = confirmation = 0.0
        while not stop.is_set():
            now = time.monotonic()
            changes = fib.changes()
            # no setup may replace the maps meanwhile
            with locks.network_lock(settings.run_dir, shared=True):
                if waker.take() or changes is None or now >= review:
                    _take_all(settings, copy)
                    review = now + REVIEW
                    _write(settings, copy)
                elif copy.take_in(changes):
                    _write(settings, copy)
                if now >= confirmation:
                    _confirm(settings, fib, copy)
                    confirmation = now + CONFIRMATION
                _renew(settings)
            fib.wait(RENEWAL, waker.fileno())


def write_vtep(root: Path, vtep: IPAddress) -> None:
    """Make `vtep` this node's address in the programs. Callers hold the network lock."""
    with maps.open_self(root) as own:
        before = own.get(None)
        own.put(None, maps.Self(vtep, before.fresh_until if before else 0))


def write_all(root: Path, vtep: IPAddress, others: Iterable[IPAddress]) -> None:
    """Write the next hops of all other nodes once, from this node's `vtep`, as the kernel has them.

    For a map that is not in use yet. Callers hold the network lock. Raises OSError.
    """
    with Fib() as fib, maps.open_nexthops(root) as table:
        copy = Copy(fib)
        copy.take_all(vtep, others)
        for other, hop in copy.wanted.items():
            table.put(other, hop)


def fresh_until_ns() -> int:
    """Now and a lease later, on the programs' clock, which is behind by a tick at most."""
    return time.monotonic_ns() + int(LEASE * 1e9)


def is_fresh(settings: Settings) -> bool:
    """Whether the programs use what is in the table now. Raises NotAvailable."""
    with maps.open_self(settings.pin_root) as own:
        found = own.get(None)
    now = time.monotonic_ns()
    return found is not None and now < found.fresh_until


def _take_all(settings: Settings, copy: Copy) -> None:
    node = Node.load(settings)
    with maps.open_vteps(settings.pin_root) as vteps, maps.open_nexthops(settings.pin_root) as hops:
        copy.take_all(node.vtep, [vtep for vtep, _ in vteps.items()])
        copy.written = dict(hops.items())


def _write(settings: Settings, copy: Copy) -> None:
    want = copy.wanted
    changes = plan(copy.written, want, synced=True)
    if not changes:
        return
    with maps.open_nexthops(settings.pin_root) as table:
        apply(changes, table)
    copy.written = want
    log.info("nexthops=%d changed=%d gone=%d", len(want), len(changes.upserts),
             len(changes.deletes))  # fmt: skip


def _renew(settings: Settings) -> None:
    """Vouch for the table. Whoever writes the address does so with no one sharing the lock."""
    with maps.open_self(settings.pin_root) as own:
        before = own.get(None)
        if before is not None:
            own.put(None, maps.Self(before.vtep, fresh_until_ns()))


def _confirm(settings: Settings, fib: Fib, copy: Copy) -> None:
    """Tell the kernel of the neighbours that were used, once each, and start to watch anew."""
    used: set[tuple[int, IPAddress]] = set()
    with maps.open_nexthops(settings.pin_root) as table:
        for vtep, hop in table.items():
            path = copy.path(vtep)
            if hop.used and path is not None:
                table.put(vtep, replace(hop, used=False))
                used.add((path.ifindex, path.neighbour))
    fib.confirm(used)
