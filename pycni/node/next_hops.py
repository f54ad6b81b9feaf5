# SPDX-License-Identifier: Apache-2.0
"""The table `nexthops`: how packets to each other node leave, as the kernel would send them. Our
programs use it for packets that they encapsulate themselves.

The kernel decides. This module copies what the kernel would do, each time it tells of a change, and
vouches for the copy a few seconds ahead (`self.fresh_until`). If nobody vouches for the table any
more, or it has no entry for a node, the programs hand packets to the VXLAN device, and the kernel
decides for each packet. So a dead agent costs speed, and never a path.

Nothing here resolves a neighbour. The first packet to a node goes through the kernel, which asks
for the neighbour, and tells of the answer in an event. The programs mark the entries they use; the
kernel is told that those neighbours are in use, and confirms them as it confirms its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.dataplane.maps import NextHop, Table, Vtep
from pycni.dataplane.reconcile import apply, plan
from pycni.kernel.fib import (
    Change,
    Fib,
    NeighbourChange,
    Neighbours,
    OtherChange,
)
from pycni.kernel.fib import Path as Way
from pycni.kernel.links import Link
from pycni.node import direct, overlay, path_mtus
from pycni.node import modes as node_modes
from pycni.node.modes import Mode
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import NodeRecord

LEASE = 5.0
"""Seconds for which the programs use the table after the agent last vouched for it."""
REVIEWED = 500
"""Nodes at a time to which paths are asked for again: a path may change without an event."""

log = logging.getLogger(__name__)


class Copy:
    """What the kernel's tables say about packets to the other nodes."""

    def __init__(self, fib: Fib, known: Callable[[], Iterable[NodeRecord]] = tuple) -> None:
        """`known`: other nodes as the store has them, whose addresses are not held twice."""
        self._fib = fib
        self.known = known
        self.vtep: IPAddress | None = None
        """This node's; None until everything was asked for."""
        self._others: dict[IPAddress, Mode] = {}
        """The other nodes, and how packets may leave to each."""
        self._reviewed = 0
        """How many of them had their turn."""
        self.node: Node | None = None
        """This node's record, by which that was found."""
        self._paths: dict[IPAddress, Way] = {}
        self._links: dict[int, Link] = {}
        self._overlay = 0
        self._narrow: dict[IPAddress, int] | None = {}
        """None: to be found out."""
        self._neighbours: Neighbours = {}
        self.written: dict[IPAddress, NextHop] = {}
        self.written_digest = b""
        """Of the table, as it was written."""
        self.nodes_digest = b""
        """Of the table of nodes, as it was read."""

    def take_all(self, vtep: IPAddress, others: Mapping[IPAddress, Mode]) -> None:
        """Ask for everything. `others` says of each node how packets may leave to it."""
        self.vtep, self._others = vtep, dict(others)
        self._neighbours = self._fib.neighbours()
        self.take_paths()

    def take_paths(self) -> None:
        """Ask for routes and links."""
        if self.vtep is not None:
            self._paths = self._fib.paths(self._others, self.vtep)
            self._overlay = overlay.ifindex()
            self._take_links()

    def take_nodes(self, others: Mapping[IPAddress, Mode]) -> None:
        """These are the other nodes now, as for `take_all`: ask for the paths to those that
        came."""
        before, self._others = self._others, dict(others)
        for gone in before.keys() - self._others.keys():
            self._paths.pop(gone, None)
        self._narrow = None
        self.take_again([vtep for vtep in self._others if vtep not in before])

    def take_turn(self) -> bool:
        """Ask for the paths that are narrow, and for those to REVIEWED of the nodes, which all have
        their turn; True if one is different now."""
        start = self._reviewed if self._reviewed < len(self._others) else 0
        self._reviewed = start + REVIEWED
        return self.take_again({*islice(self._others, start, self._reviewed), *self.narrow})

    def take_again(self, vteps: Iterable[IPAddress]) -> bool:
        """Ask for the paths to some of the nodes; True if one is different now."""
        asked = [vtep for vtep in vteps if vtep in self._others]
        if self.vtep is None or not asked:
            return False
        before = {vtep: self._paths.pop(vtep) for vtep in asked if vtep in self._paths}
        now = self._fib.paths(asked, self.vtep)
        self._paths |= now
        if now == before:
            return False
        self._take_links()
        return True

    def take_in(self, changes: Iterable[Change]) -> bool:
        """Take in events; True if `wanted` may be different now."""
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
        return wanted(
            self._paths,
            self._links,
            self._neighbours,
            modes=self._modes,
            former=self.written,
        )

    @property
    def _modes(self) -> dict[IPAddress, Mode]:
        return node_modes.chosen(self._others, self._paths, self._links)

    @property
    def narrow(self) -> dict[IPAddress, int]:
        """What the paths carry that are narrower than the overlay device's MTU."""
        if self._narrow is None:
            device = self._links.get(self._overlay)
            overlay_mtu = device.mtu if device is not None else 0
            self._narrow = path_mtus.narrow(
                self._paths, self._links, overlay_mtu=overlay_mtu, modes=self._modes
            )
        return self._narrow

    def path(self, vtep: IPAddress) -> Way | None:
        return self._paths.get(vtep)

    def confirm(self, used: Iterable[tuple[int, IPAddress]]) -> None:
        """Tell the kernel that neighbours, by interface and address, are in use."""
        self._fib.confirm(used)

    def _take_links(self) -> None:
        """Those of the paths, and the overlay device, whose MTU all paths are compared with."""
        self._narrow = None
        indexes = {path.ifindex for path in self._paths.values()}
        self._links = self._fib.links(indexes | {self._overlay} if self._overlay else indexes)


def wanted(
    paths: Mapping[IPAddress, Way],
    links: Mapping[int, Link],
    neighbours: Neighbours,
    *,
    modes: Mapping[IPAddress, Mode] = MappingProxyType({}),
    former: Mapping[IPAddress, NextHop] = MappingProxyType({}),
) -> dict[IPAddress, NextHop]:
    """The entries that `nexthops` must have; `modes`: how packets leave to the nodes that get
    something else than VXLAN. Pure.

    A node gets none, and packets to it are left to the kernel, if the link to it is down or no
    Ethernet, or if the neighbour is not known. But one that `modes` names has an entry all the
    same: the programs ask the kernel for the neighbour when they send. With DIRECT it keeps the MAC
    that it has in the `former` entries: the programs know what they receive by that, and the kernel
    forgets it while only the other node sends.
    """
    found: dict[IPAddress, NextHop] = {}
    made: dict[tuple[int, int, str, str, bool, bool, bool, bool], NextHop] = {}
    """Thousands of nodes may be behind one gateway."""
    for vtep, path in paths.items():
        link = links.get(path.ifindex)
        if link is None or not link.is_running or not link.is_ethernet:
            continue
        mac = neighbours.get((path.ifindex, path.neighbour))
        on_link, mode = path.neighbour == vtep, modes.get(vtep, Mode.VXLAN)
        is_direct, in_ipip = mode is Mode.DIRECT, mode is Mode.IPIP
        unresolved = mac is None
        if mac is None and is_direct:
            mac = _last_mac(former.get(vtep), path.ifindex, on_link=on_link)
        elif mac is None and in_ipip:
            mac = direct.NO_MAC
        if mac is not None:
            mtu = path_mtus.inner_mtu(vtep, path, link, mode)
            key = path.ifindex, mtu, mac, link.mac, on_link, is_direct, unresolved, in_ipip
            if key not in made:
                made[key] = NextHop(*key)
            found[vtep] = made[key]
    return found


def _last_mac(former: NextHop | None, ifindex: int, *, on_link: bool) -> str:
    """That of a node, or of the router to it, by its entry of before; NO_MAC if none is known."""
    if former is None or former.on_link != on_link or former.ifindex != ifindex:
        return direct.NO_MAC
    return former.dst_mac


def review(settings: Settings, copy: Copy) -> None:
    """Ask the kernel for everything again, and write what differs. Callers hold the network lock.

    Raises NotAvailable, or OSError with the kernel's errno; so do the functions below.
    """
    node = Node.load(settings)
    with maps.open_vteps(settings.pin_root) as vteps, maps.open_nexthops(settings.pin_root) as hops:
        copy.nodes_digest = vteps.digest()
        copy.node = node
        copy.take_all(node.vtep, _others(vteps, node, copy.known()))
        copy.written, copy.written_digest = dict(hops.stream()), hops.digest(but="used")
    write(settings, copy)


def review_some(settings: Settings, copy: Copy) -> None:
    """As `review`, at a cost that does not grow with the cluster: the kernel is asked for some of
    the paths, and the table is read only if it is not as it was written. Callers hold the network
    lock."""
    node = Node.load(settings)
    if copy.node is None or _sends(node) != _sends(copy.node):
        review(settings, copy)
        return
    differs = copy.take_turn()
    with maps.open_nexthops(settings.pin_root) as hops:
        if (found := hops.digest(but="used")) != copy.written_digest:
            copy.written, copy.written_digest = dict(hops.stream()), found
            differs = True
    if _take_nodes(settings, copy) or differs:
        write(settings, copy)


def follow_nodes(settings: Settings, copy: Copy) -> None:
    """Ask the kernel for the paths to nodes that came, and write what differs. Callers hold the
    network lock."""
    _take_nodes(settings, copy)
    write(settings, copy)


def _take_nodes(settings: Settings, copy: Copy) -> bool:
    """Whether there are other nodes than before."""
    with maps.open_vteps(settings.pin_root) as vteps:
        if (found := vteps.digest()) == copy.nodes_digest:
            return False
        copy.take_nodes(_others(vteps, copy.node or Node.load(settings), copy.known()))
        copy.nodes_digest = found
    return True


def _sends(node: Node) -> tuple[IPAddress, bool, bool, bool]:
    """What of a node's record decides how it sends."""
    return node.vtep, node.direct, node.routed, node.ipip


def _others(
    vteps: Table[IPAddress, Vtep], node: Node, known: Iterable[NodeRecord]
) -> dict[IPAddress, Mode]:
    """The other nodes of `node`, as `Copy.take_all` takes them."""
    held = {one.vtep: one.vtep for one in known}
    return {
        held.get(vtep, vtep): node_modes.towards(node, node_modes.accepted(entry))
        for vtep, entry in vteps.stream()
    }


def write(settings: Settings, copy: Copy) -> None:
    """Make the table agree with the copy. Callers hold the network lock."""
    want = copy.wanted
    changes = plan(copy.written, want, synced=True)
    if not changes:
        copy.written = want  # equal, and shares what it is made of
        return
    with maps.open_nexthops(settings.pin_root) as table:
        apply(changes, table)
        copy.written_digest = table.digest(but="used")
    copy.written = want
    log.info("next hops written nexthops=%d direct=%d ipip=%d changed=%d gone=%d", len(want),
             sum(hop.direct for hop in want.values()), sum(hop.ipip for hop in want.values()),
             len(changes.upserts), len(changes.deletes))  # fmt: skip


def confirm(settings: Settings, copy: Copy) -> set[IPAddress]:
    """Tell the kernel which neighbours were used since the last call, and clear the marks. Returns
    the VTEPs that packets were sent to."""
    used: set[tuple[int, IPAddress]] = set()
    vteps: set[IPAddress] = set()
    with maps.open_nexthops(settings.pin_root) as table:
        for vtep, hop in table.marked("used"):
            path = copy.path(vtep)
            if path is not None:
                table.put(vtep, replace(hop, used=False))
                used.add((path.ifindex, path.neighbour))
                vteps.add(vtep)
    copy.confirm(used)
    return vteps


def vouch(settings: Settings) -> None:
    """Have the programs use the table for another LEASE. Callers share the network lock; the
    writer of the address, in the same entry, holds it alone."""
    with maps.open_self(settings.pin_root) as own:
        before = own.get(None)
        if before is not None:
            own.put(None, maps.Self(before.vtep, fresh_until_ns()))


def write_vtep(root: Path, vtep: IPAddress) -> None:
    """Make `vtep` this node's underlay address in the programs. Callers hold the network lock."""
    with maps.open_self(root) as own:
        before = own.get(None)
        own.put(None, maps.Self(vtep, before.fresh_until if before else 0))


def write_all(root: Path, vtep: IPAddress, others: Mapping[IPAddress, Mode]) -> None:
    """Write the next hops from this node's `vtep` to all other nodes once, as the kernel has them;
    `others` as for `Copy.take_all`.

    For a map that no program uses yet. Callers hold the network lock. Raises OSError.
    """
    with Fib() as fib, maps.open_nexthops(root) as table:
        copy = Copy(fib)
        copy.take_all(vtep, others)
        for other, hop in copy.wanted.items():
            table.put(other, hop)


def fresh_until_ns() -> int:
    """LEASE from now, in nanoseconds of CLOCK_MONOTONIC. The programs' coarse clock is at most one
    tick behind."""
    return time.monotonic_ns() + int(LEASE * 1e9)


def modes(settings: Settings) -> dict[IPAddress, Mode]:
    """DIRECT, IPIP or VXLAN for each other node, by VTEP: how packets to it leave. Raises
    NotAvailable or OSError."""
    with maps.open_vteps(settings.pin_root) as vteps, maps.open_nexthops(settings.pin_root) as hops:
        found = dict.fromkeys((vtep for vtep, _ in vteps.items()), Mode.VXLAN)
        return found | {vtep: node_modes.leaves(hop) for vtep, hop in hops.items() if vtep in found}


def is_fresh(settings: Settings) -> bool:
    """Whether the programs use the table now. Raises NotAvailable."""
    with maps.open_self(settings.pin_root) as own:
        found = own.get(None)
    now = time.monotonic_ns()
    return found is not None and now < found.fresh_until
