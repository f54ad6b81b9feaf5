# SPDX-License-Identifier: Apache-2.0
"""Tells the dataplane which address is which node's: the map `nodes`, and the sets of the nftables
table of host ports, which are a copy of it without this node's own addresses.

Runs in the node's network namespace, under its network lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.faults import Fault
from pycni.node import directory
from pycni.node.directory import Directory
from pycni.pods import port_table

PART = "nodes"


def write(root: Path, nodes: Directory) -> int:
    """Make map and sets agree with `nodes`; returns the number of entries of the map that changed.

    Without the table of host ports, which setup makes, the sets wait for `mend`. Raises SetupError,
    NotAvailable without the map, or OSError.
    """
    count = directory.write(root, nodes.entries)
    with suppress(NotAvailable):
        port_table.write_nodes(nodes.others)
    return count


def write_changes(root: Path, changes: Mapping[IPAddress, IPAddress | None]) -> None:
    """The same for some addresses, each with the VTEP of the node that has it now."""
    directory.write_changes(root, changes)
    if not changes:
        return
    own = _own_vtep(root)
    gone = [one for one, vtep in changes.items() if vtep in (None, own)]
    with suppress(NotAvailable):
        port_table.change_nodes(create=[one for one in changes if one not in gone], delete=gone)


def mend(root: Path) -> None:
    """Make the sets agree with the map, as after the table was made anew. Raises as `write`."""
    port_table.write_nodes(_others(root))


def faults(root: Path) -> list[Fault]:
    """Whether the sets lack addresses of the map, or have more. Raises as `write`."""
    wanted, found = _others(root), port_table.nodes()
    if wanted == found:
        return []
    more = f", and {len(found - wanted)} that are no node's" if found - wanted else ""
    state = f"without {len(wanted - found)} of {len(wanted)} addresses of other nodes{more}"
    return [Fault(PART, f"the nftables table {port_table.TABLE}", state)]


def _others(root: Path) -> set[IPAddress]:
    own = _own_vtep(root)
    with maps.open_nodes(root) as table:
        return {address for address, vtep in table.items() if vtep != own}


def _own_vtep(root: Path) -> IPAddress | None:
    with maps.open_self(root) as table:
        found = table.get(None)
    return None if found is None else found.vtep
