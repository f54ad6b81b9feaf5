"""The other nodes as the dataplane sees them: the `vteps` and `remotes` tables.

One `vteps` entry per other node and one `remotes` entry per CIDR of it, whatever the number of
pods; and one for each address that it published from outside of its CIDRs. Deciding is pure
(dataplane/reconcile.py); this module translates records to entries and applies: all nodes against
what the tables hold once, then the nodes that changed, so that a join costs the same in any
cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane import maps
from pycni.dataplane.reconcile import Plan, apply, plan
from pycni.stores import (
    Event,
    NodeRecord,
    Put,
    Removed,
    Synced,
)


class Membership:
    """What a store's events have told so far; feed it every event, write at each Synced."""

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name
        self._nodes: dict[str, NodeRecord] = {}
        self._before: dict[str, NodeRecord | None] = {}

    def feed(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Put(node):
                self._before.setdefault(node.name, self._nodes.get(node.name))
                self._nodes[node.name] = node
            case Removed(name):
                self._before.setdefault(name, self._nodes.get(name))
                self._nodes.pop(name, None)
            case Synced():
                pass

    @property
    def knows_us(self) -> bool:
        """Whether this node is one of them. A store without it is another than the one it joined,
        or one that lost its data, and may have given this node's place to another."""
        return self._own_name in self._nodes

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


def write(root: Path, others: Iterable[NodeRecord], *, synced: bool) -> int:
    """Make both tables agree with `others`; returns the number of entries changed.

    `root` is the pin directory. Raises OSError with the kernel's errno.
    """
    nodes = list(others)
    with maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
        peers = plan(dict(vteps.items()), wanted_vteps(nodes), synced=synced)
        prefixes = plan(dict(remotes.items()), wanted_remotes(nodes), synced=synced)
        return _apply(vteps, peers, remotes, prefixes)


def write_changes(root: Path, before: Iterable[NodeRecord], after: Iterable[NodeRecord]) -> int:
    """Make both tables, which agree with nodes as they were, agree with the same nodes as they are.

    As `write`. Whatever of a node others have now must be among theirs in `after`: one batch of a
    store's changes, or more, not a part of one.
    """
    was, now = list(before), list(after)
    peers = plan(wanted_vteps(was), wanted_vteps(now), synced=True)
    prefixes = plan(wanted_remotes(was), wanted_remotes(now), synced=True)
    with maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
        return _apply(vteps, peers, remotes, prefixes)


def wanted_vteps(nodes: Iterable[NodeRecord]) -> dict[IPAddress, int]:
    return {node.vtep: node.node_id for node in nodes}


def wanted_remotes(nodes: Iterable[NodeRecord]) -> dict[IPNetwork, IPAddress]:
    return {prefix: node.vtep for node in nodes for prefix in (*node.pod_cidrs, *node.extra)}


def _apply(
    vteps: maps.Table[IPAddress, int],
    peers: Plan[IPAddress, int],
    remotes: maps.Table[IPNetwork, IPAddress],
    prefixes: Plan[IPNetwork, IPAddress],
) -> int:
    """The number of entries changed. VTEPs come before the remotes that name them and go after, so
    that a prefix never points at a host that is not believed."""
    for vtep, number in peers.upserts.items():
        vteps.put(vtep, number)
    apply(prefixes, remotes)
    for vtep in peers.deletes:
        vteps.remove(vtep)
    return sum(len(p.upserts) + len(p.deletes) for p in (peers, prefixes))
