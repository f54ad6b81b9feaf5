# SPDX-License-Identifier: Apache-2.0
"""Part "node addresses": which address is which node's, in the map `nodes` and in the sets of the
nftables table of host ports, which are a copy of it without this node's own addresses.

What writes runs under the node's network lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.errors import NotAvailable, SetupError
from pycni.faults import Fault
from pycni.node import directory
from pycni.node.directory import Directory
from pycni.pods import port_table
from pycni.upkeep.description import Description
from pycni.upkeep.peers import own_vtep
from pycni.upkeep.seen import Seen

PART = "node addresses"


def write(root: Path, nodes: Directory) -> int:
    """Make map and sets agree with `nodes`; returns the number of entries of the map that changed.

    Sets that cannot be written wait for `mend`, and `faults` tells of them. Raises NotAvailable
    without the map, or OSError.
    """
    count = directory.write(root, nodes.entries)
    with suppress(NotAvailable, SetupError):
        port_table.write_nodes(nodes.others)
    return count


def write_changes(root: Path, changes: Mapping[IPAddress, IPAddress | None]) -> None:
    """The same for some addresses, each with the VTEP of the node that has it now."""
    directory.write_changes(root, changes)
    if not changes:
        return
    own = own_vtep(root)
    gone = {one for one, vtep in changes.items() if vtep in (None, own)}
    with suppress(NotAvailable, SetupError):
        port_table.change_nodes(create=[one for one in changes if one not in gone], delete=gone)


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Compares the map with the store as far as it is known, and the sets with the map."""
    root = d.settings.pin_root
    try:
        missing, surplus = _differences(d) if d.own_record is not None else (0, 0)
        others = _others(root)
    except NotAvailable:  # programs.py says so
        return
    if missing or surplus:
        found = f"without {missing} entries, and with {surplus} that are wrong"
        yield Fault(PART, "the map nodes", found)
    try:
        if port_table.has_nodes(others):
            return
        known = port_table.nodes()
    except NotAvailable:  # tables.py says so
        return
    missing, surplus = len(others - known), len(known - others)
    if missing or surplus:
        found = f"without {missing} of {len(others)} addresses of other nodes"
        found += f", and with {surplus} that are no node's" if surplus else ""
        yield Fault(PART, f"the nftables table {port_table.TABLE}", found)


def state(d: Description, seen: Seen) -> object:
    """The map, and all that nftables has. Raises NotAvailable or OSError."""
    root = d.settings.pin_root
    return own_vtep(root), seen.digest(root, "nodes"), seen.nft_generation


def mend(d: Description, _: Seen) -> None:
    """Write what is missing, in the sets also take away. Raises SetupError, NotAvailable, OSError.

    Only a setup removes from the map what seems to be of no node (peers.py).
    """
    root = d.settings.pin_root
    if d.own_record is not None:
        directory.write_changes(root, dict(Directory(d.node.name, d.nodes or ()).entries))
    with suppress(NotAvailable):
        port_table.write_nodes(_others(root))


def _differences(d: Description) -> tuple[int, int]:
    """How many entries are missing or wrong, and how many are of nobody."""
    wanted = Directory(d.node.name, d.nodes or ()).entries
    with maps.open_nodes(d.settings.pin_root) as table:
        changes = table.plan(wanted, synced=True)
    return len(changes.upserts), len(changes.deletes)


def _others(root: Path) -> set[IPAddress]:
    own = own_vtep(root)
    with maps.open_nodes(root) as table:
        return {address for address, vtep in table.stream() if vtep != own}
