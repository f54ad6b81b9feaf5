"""The other nodes as the dataplane sees them: the `vteps` and `remotes` tables.

One `vteps` entry per other node and one `remotes` entry per CIDR of it, whatever the number of
pods; and one for each address that it published from outside of its CIDRs. Deciding is pure
(reconcile.py); this module translates records to entries and applies.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pycni import maps
from pycni.cluster import IPAddress, IPNetwork
from pycni.reconcile import apply, plan
from pycni.stores import Event, NodeRecord, Put, Removed, Synced


class Membership:
    """What a store's events have told so far; feed it every event, write after each."""

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name
        self._nodes: dict[str, NodeRecord] = {}
        self.synced = False
        """Whether the first list is complete: before, nothing may be deleted."""

    def feed(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Put(node):
                self._nodes[node.name] = node
            case Removed(name):
                self._nodes.pop(name, None)
            case Synced():
                self.synced = True

    @property
    def knows_us(self) -> bool:
        """Whether this node is one of them. A store without it is another than the one it joined,
        or one that lost its data, and may have given this node's place to another."""
        return self._own_name in self._nodes

    @property
    def others(self) -> list[NodeRecord]:
        """Every known node but this one."""
        return [node for name, node in self._nodes.items() if name != self._own_name]


def write(root: Path, others: Iterable[NodeRecord], *, synced: bool) -> int:
    """Make both tables agree with `others`; returns the number of entries changed.

    `root` is the pin directory. VTEPs come before the remotes that name them and go after, so that
    a prefix never points at a host that is not believed. Raises OSError with the kernel's errno.
    """
    nodes = list(others)
    with maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
        peers = plan(dict(vteps.items()), wanted_vteps(nodes), synced=synced)
        prefixes = plan(dict(remotes.items()), wanted_remotes(nodes), synced=synced)
        for vtep, number in peers.upserts.items():
            vteps.put(vtep, number)
        apply(prefixes, remotes)
        for vtep in peers.deletes:
            vteps.remove(vtep)
    return sum(len(p.upserts) + len(p.deletes) for p in (peers, prefixes))


def wanted_vteps(nodes: Iterable[NodeRecord]) -> dict[IPAddress, int]:
    return {node.vtep: node.node_id for node in nodes}


def wanted_remotes(nodes: Iterable[NodeRecord]) -> dict[IPNetwork, IPAddress]:
    return {prefix: node.vtep for node in nodes for prefix in (*node.pod_cidrs, *node.extra)}
