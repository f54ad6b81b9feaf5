# SPDX-License-Identifier: Apache-2.0
"""The other nodes as the dataplane sees them: the maps `vteps` and `remotes`.

Each other node has one entry in `vteps`. In `remotes` it has one entry per pod CIDR, however many
pods it has, and one per address that it published. What to change is decided purely
(dataplane/reconcile.py); this module turns records into entries and writes them: all nodes once,
against what the maps hold, and then only the nodes that changed. So a join costs the same in a
cluster of any size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane import maps
from pycni.dataplane.reconcile import Plan, apply, plan
from pycni.stores import Event, NodeRecord, Put, Rejected, Removed, Synced


class Membership:
    """What one watch of the store has said so far. Feed it every event; write at each Synced."""

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name
        self._nodes: dict[str, NodeRecord] = {}
        self._before: dict[str, NodeRecord | None] = {}
        self.rejected: dict[str, str] = {}
        """Records that are set aside: the reason by name."""

    def feed(self, event: Event[NodeRecord]) -> None:
        """Take in one event."""
        match event:
            case Put(name, node):
                self._note(name)
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
    """What is new about records that are set aside, over any number of watches."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def take(self, rejected: Mapping[str, str]) -> list[tuple[str, str]]:
        """Name and reason of each record that was set aside since the last call; an empty reason
        for each that no longer is. `rejected` is that of a Membership at a Synced."""
        told, self._told = self._told, dict(rejected)
        news = [(name, why) for name, why in rejected.items() if told.get(name) != why]
        return sorted(news + [(name, "") for name in told if name not in rejected])


def write(root: Path, others: Iterable[NodeRecord], *, synced: bool) -> int:
    """Make both maps agree with `others`; returns the number of entries changed.

    `root` is the pin directory. Raises OSError with the kernel's errno.
    """
    nodes = list(others)
    with maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
        peers = plan(dict(vteps.items()), wanted_vteps(nodes), synced=synced)
        prefixes = plan(dict(remotes.items()), wanted_remotes(nodes), synced=synced)
        return _apply(vteps, peers, remotes, prefixes)


def write_changes(root: Path, before: Iterable[NodeRecord], after: Iterable[NodeRecord]) -> int:
    """Make both maps, which agree with nodes as they were, agree with the same nodes as they are.

    As `write`. `before` and `after` must be whole batches of the store's changes: if a node's
    address went to another node, both nodes must be in them.
    """
    was, now = list(before), list(after)
    peers = plan(wanted_vteps(was), wanted_vteps(now), synced=True)
    prefixes = plan(wanted_remotes(was), wanted_remotes(now), synced=True)
    with maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
        return _apply(vteps, peers, remotes, prefixes)


def wanted_vteps(nodes: Iterable[NodeRecord]) -> dict[IPAddress, int]:
    """The entries of `vteps`: node ids by VTEP."""
    return {node.vtep: node.node_id for node in nodes}


def wanted_remotes(nodes: Iterable[NodeRecord]) -> dict[IPNetwork, IPAddress]:
    """The entries of `remotes`: VTEPs by pod CIDR and by published address."""
    return {prefix: node.vtep for node in nodes for prefix in (*node.pod_cidrs, *node.extra)}


def _apply(
    vteps: maps.Table[IPAddress, int],
    peers: Plan[IPAddress, int],
    remotes: maps.Table[IPNetwork, IPAddress],
    prefixes: Plan[IPNetwork, IPAddress],
) -> int:
    """The number of entries changed. A VTEP is written before the remotes that name it, and removed
    after them, so that no prefix ever points at a host that is not a node."""
    for vtep, number in peers.upserts.items():
        vteps.put(vtep, number)
    apply(prefixes, remotes)
    for vtep in peers.deletes:
        vteps.remove(vtep)
    return sum(len(p.upserts) + len(p.deletes) for p in (peers, prefixes))
