# SPDX-License-Identifier: Apache-2.0
"""The other nodes as the dataplane sees them: the maps `vteps` and `remotes`.

Each other node has one entry in `vteps`. In `remotes` it has one entry per network of its pods,
however many pods it has, and one per address that it published. What to change is decided purely
(dataplane/reconcile.py); this module turns records into entries and writes them: all nodes once,
against what the maps hold, and then only the nodes that changed. So a join costs the same in a
cluster of any size.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane import maps
from pycni.dataplane.maps import Vtep
from pycni.dataplane.reconcile import Plan, plan
from pycni.errors import NotAvailable
from pycni.line_limit import LineLimit
from pycni.node import modes
from pycni.stores import Event, NodeRecord, Put, Rejected, Removed, Synced

NO_ROOM = (errno.E2BIG, errno.ENOSPC)
LINES_A_NAME, NAMES_TOLD = 4, 20
"""Lines in each interval of LineLimit: about one record, and records that are named."""

K = TypeVar("K")
V = TypeVar("V")


class Membership:
    """What one watch of the store has said so far. Feed it every event; write at each Synced."""

    def __init__(self, own_name: str, own_addresses: frozenset[IPAddress] = frozenset()) -> None:
        """`own_addresses` are those that this node has, besides what its record says."""
        self._own_name = own_name
        self._own_addresses = own_addresses
        self._nodes: dict[str, NodeRecord] = {}
        self._before: dict[str, NodeRecord | None] = {}
        self.rejected: dict[str, str] = {}
        """Records that are set aside: the reason by name."""

    def feed(self, event: Event[NodeRecord]) -> None:
        """Take in one event."""
        match event:
            case Put(name, node):
                self._note(name)
                reason = "" if name == self._own_name else unfit(node, self._own_addresses)
                if reason:
                    self._nodes.pop(name, None)
                    self.rejected[name] = reason
                else:
                    self._nodes[name] = node
            case Removed(name):
                self._note(name)
                self._nodes.pop(name, None)
            case Rejected(name, reason):
                self._note(name)
                self._nodes.pop(name, None)
                self.rejected[name] = reason
            case Synced():
                pass

    @property
    def knows_us(self) -> bool:
        """Whether this node is one of them. If not, this is another store than the one it joined,
        or one that lost its data, and may have given this node's place to another; or the record
        of this node is set aside."""
        return self._own_name in self._nodes

    @property
    def nodes(self) -> list[NodeRecord]:
        """Every known node."""
        return list(self._nodes.values())

    @property
    def own(self) -> NodeRecord | None:
        """This node's record."""
        return self._nodes.get(self._own_name)

    @property
    def others(self) -> list[NodeRecord]:
        """Every known node but this one."""
        return [node for name, node in self._nodes.items() if name != self._own_name]

    def take_changes(self) -> tuple[list[NodeRecord], list[NodeRecord]]:
        """Other nodes that changed since the last call: as they were then, and as they are."""
        before, self._before = self._before, {}
        before.pop(self._own_name, None)
        return (
            [node for node in before.values() if node is not None],
            [self._nodes[name] for name in before if name in self._nodes],
        )

    def _note(self, name: str) -> None:
        """Keep what a node was at the last `take_changes`; its rejection ends."""
        self._before.setdefault(name, self._nodes.get(name))
        self.rejected.pop(name, None)


class RejectionNews:
    """What is new about records that are set aside, over any number of watches.

    A record that changes all the time makes a few lines a minute, and so does any number of bad
    records together.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._told: dict[str, str] = {}
        self._limit = LineLimit(lines=LINES_A_NAME, subjects=NAMES_TOLD, clock=clock)

    def take(self, rejected: Mapping[str, str]) -> list[tuple[str, str]]:
        """Name and reason of each record that was set aside since the last call; an empty reason
        for each that no longer is. `rejected` is that of a Membership at a Synced. What is over the
        limit is left for a later call."""
        told = self._told
        changed = [name for name, why in rejected.items() if told.get(name) != why]
        changed += [name for name in told if name not in rejected]
        news = []
        for name in sorted(changed):
            if self._limit.take(name) is None:
                continue
            reason = rejected.get(name, "")
            news.append((name, reason))
            if reason:
                told[name] = reason
            else:
                del told[name]
        return news


@dataclass(frozen=True)
class Written:
    """What a write did."""

    changed: int
    """Entries that changed."""
    left_out: frozenset[IPAddress] = frozenset()
    """VTEPs of nodes that the maps have no room for."""


def unfit(node: NodeRecord, own: Collection[IPAddress]) -> str:
    """Why another node's record cannot be used on a node with these addresses; empty if it can.

    All that is in the store does not tell: an address may be this node's and in no record.
    """
    if node.vtep in own:
        return f"its VTEP {node.vtep} is an address of this node"
    for prefix in node.extra:
        if prefix.network_address in own:
            return f"the address {prefix} that it published is one of this node"
    return ""


def followed(
    nodes: Iterable[NodeRecord], own_name: str, own: Collection[IPAddress]
) -> tuple[NodeRecord, ...]:
    """Of the nodes that a store lists, those that a node with these addresses follows."""
    return tuple(one for one in nodes if one.name == own_name or not unfit(one, own))


def write(root: Path, others: Iterable[NodeRecord], *, synced: bool) -> Written:
    """Make both maps agree with `others`.

    `root` is the pin directory. Nodes for which there is no room are left out, and the others are
    there. Raises OSError with the kernel's errno.
    """
    nodes = list(others)
    with maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
        peers = vteps.plan(wanted_vteps(nodes), synced=synced)
        prefixes = remotes.plan(wanted_remotes(nodes), synced=synced)
        return _apply(vteps, peers, remotes, prefixes)


def write_changes(root: Path, before: Iterable[NodeRecord], after: Iterable[NodeRecord]) -> Written:
    """Make both maps, which agree with nodes as they were, agree with the same nodes as they are.

    As `write`. `before` and `after` must be whole batches of the store's changes: if a node's
    address went to another node, both nodes must be in them.
    """
    was, now = list(before), list(after)
    peers = plan(wanted_vteps(was), wanted_vteps(now), synced=True)
    prefixes = plan(wanted_remotes(was), wanted_remotes(now), synced=True)
    with maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
        return _apply(vteps, peers, remotes, prefixes)


def pinned(root: Path) -> list[NodeRecord]:
    """The other nodes as the pinned maps have them, each with its VTEP in the place of its name;
    none if nothing is pinned. Raises OSError."""
    try:
        with (
            maps.open_vteps(root) as vteps,
            maps.open_remotes(root) as remotes,
            maps.open_nodes(root) as nodes,
        ):
            known_vteps = dict(vteps.items())
            behind, owners = dict(remotes.items()), dict(nodes.items())
    except NotAvailable:
        return []
    return [
        NodeRecord(
            str(vtep),
            known.node,
            vtep,
            tuple(one for one, at in behind.items() if at == vtep and not _is_single(one)),
            tuple(one for one, at in behind.items() if at == vtep and _is_single(one)),
            tuple(one for one, at in owners.items() if at == vtep),
            accepts=modes.accepted(known),
        )
        for vtep, known in known_vteps.items()
    ]


def _is_single(prefix: IPNetwork) -> bool:
    return prefix.prefixlen == prefix.max_prefixlen


def wanted_vteps(nodes: Iterable[NodeRecord]) -> dict[IPAddress, Vtep]:
    """The entries of `vteps`, by VTEP."""
    return {
        node.vtep: Vtep(node.node_id, **{word: word in node.accepts for word in modes.BESIDE})
        for node in nodes
    }


def wanted_remotes(nodes: Iterable[NodeRecord]) -> dict[IPNetwork, IPAddress]:
    """The entries of `remotes`: VTEPs by network of pods and by published address."""
    return {prefix: node.vtep for node in nodes for prefix in (*node.networks, *node.extra)}


def _apply(
    vteps: maps.Table[IPAddress, Vtep],
    peers: Plan[IPAddress, Vtep],
    remotes: maps.Table[IPNetwork, IPAddress],
    prefixes: Plan[IPNetwork, IPAddress],
) -> Written:
    """A VTEP is written before the remotes that name it, and removed after them, so that no prefix
    ever points at a host that is not a node. What does not fit at first may fit when others are
    removed."""
    late = _put_all(vteps, peers.upserts)
    pending = _put_all(
        remotes, {prefix: vtep for prefix, vtep in prefixes.upserts.items() if vtep not in late}
    )
    for prefix in prefixes.deletes:
        remotes.remove(prefix)
    for vtep in peers.deletes:
        vteps.remove(vtep)
    left_out = _put_all(vteps, late)
    pending |= {
        prefix: vtep
        for prefix, vtep in prefixes.upserts.items()
        if vtep in late and vtep not in left_out
    }
    unwritten = _put_all(remotes, pending)
    changed = sum(len(p.upserts) + len(p.deletes) for p in (peers, prefixes))
    return Written(
        changed - len(left_out) - len(unwritten), frozenset({*left_out, *unwritten.values()})
    )


def _put_all(table: maps.Table[K, V], entries: Mapping[K, V]) -> dict[K, V]:
    """Put entries; returns those that the map has no room for."""
    full: dict[K, V] = {}
    for key, value in entries.items():
        try:
            table.put(key, value)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            full[key] = value
    return full
