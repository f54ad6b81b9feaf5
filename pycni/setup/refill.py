# SPDX-License-Identifier: Apache-2.0
"""Fills the maps of a new layout with what store, kernel and leases say.

The bytes of an old map mean something else in the new layout, so nothing is copied: each map has a
source that knows every entry of it. A new map that is not only written by programs takes a line in
SOURCES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loader import NewMaps
from pycni.errors import SetupError
from pycni.kernel.rtnl import Rtnl
from pycni.node import directory, modes, next_hops, path_mtus, peers
from pycni.node.directory import Directory
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import NodeRecord
from pycni.upkeep import endpoints


@dataclass(frozen=True)
class Facts:
    """This node, all nodes as the store lists them, and the kernel of this namespace."""

    settings: Settings
    node: Node
    record: NodeRecord
    others: Sequence[NodeRecord]
    ipr: Rtnl


def refill(new: NewMaps, facts: Facts) -> None:
    """Fill the empty maps of `new`. Callers hold the network lock alone. Raises PycniError."""
    unknown = new.empty - SOURCES.keys()
    if unknown:
        raise SetupError(
            f"the map {' '.join(sorted(unknown))} has another layout, and nothing to fill it from",
            hint="drain the node, then pycni teardown and pycni setup",
        )
    for fill in {SOURCES[name]: name for name in sorted(new.empty)}:
        fill(new.root, facts)


def _write_self(root: Path, facts: Facts) -> None:
    """Until the agent vouches for next hops again, packets take the VXLAN device."""
    next_hops.write_vtep(root, facts.node.vtep)


def _write_peers(root: Path, facts: Facts) -> None:
    peers.write(root, facts.others, synced=True)


def _write_nodes(root: Path, facts: Facts) -> None:
    nodes = Directory(facts.record.name, [facts.record, *facts.others])
    directory.write(root, nodes.entries)


def _write_next_hops(root: Path, facts: Facts) -> None:
    next_hops.write_all(root, facts.node.vtep, modes.towards_all(facts.node, facts.others))


def _write_path_mtus(root: Path, facts: Facts) -> None:
    others = modes.towards_all(facts.node, facts.others)
    path_mtus.write_all(root, facts.node.vtep, others, overlay_mtu=facts.node.mtu)


def _write_endpoints(root: Path, facts: Facts) -> None:
    endpoints.restore(root, facts.ipr, run_dir=facts.settings.run_dir)


def _leave_empty(_: Path, __: Facts) -> None:
    """The agent fills them when it has listed all Services; flows begin anew."""


SOURCES: dict[str, Callable[[Path, Facts], None]] = {
    "endpoints": _write_endpoints,
    "remotes": _write_peers,
    "vteps": _write_peers,
    "nodes": _write_nodes,
    "nexthops": _write_next_hops,
    "path_mtus": _write_path_mtus,
    "self": _write_self,
    **dict.fromkeys(("services", "slots", "backends", "flows", "affinity"), _leave_empty),
}
