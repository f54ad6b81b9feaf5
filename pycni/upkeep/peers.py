# SPDX-License-Identifier: Apache-2.0
"""Part "peers": the maps of the other nodes, and the entry of this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.dataplane.maps import Table
from pycni.errors import NotAvailable
from pycni.faults import Fault
from pycni.node import next_hops, peers
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

K = TypeVar("K")
V = TypeVar("V")

PART = "peers"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Compares with the store as far as it is known, and if it knows this node."""
    root = d.settings.pin_root
    try:
        vtep = own_vtep(root)
    except NotAvailable:  # programs.py says so
        return
    if vtep != d.node.vtep:
        found = "nothing" if vtep is None else str(vtep)
        yield Fault(PART, "this node's address in the map self", f"{found}, not {d.node.vtep}")
    if d.own_record is None:
        return
    with suppress(NotAvailable), maps.open_vteps(root) as vteps, maps.open_remotes(root) as remotes:
        yield from _differences("vteps", vteps, peers.wanted_vteps(d.others))
        yield from _differences("remotes", remotes, peers.wanted_remotes(d.others))


def state(d: Description, seen: Seen) -> object:
    """The maps. Raises NotAvailable or OSError."""
    root = d.settings.pin_root
    return own_vtep(root), seen.digest(root, "vteps"), seen.digest(root, "remotes")


def own_vtep(root: Path) -> IPAddress | None:
    """This node's address in the map self. Raises NotAvailable or OSError."""
    with maps.open_self(root) as own:
        entry = own.get(None)
    return None if entry is None else entry.vtep


def mend(d: Description, _: Seen) -> None:
    """Write what is missing. Raises NotAvailable or OSError.

    Only a setup removes what seems to be of no node: it asks the store itself, which may know more.
    """
    root = d.settings.pin_root
    next_hops.write_vtep(root, d.node.vtep)
    if d.own_record is not None:
        peers.write(root, d.others, synced=False)


def _differences(name: str, table: Table[K, V], want: Mapping[K, V]) -> Iterator[Fault]:
    changes = table.plan(want, synced=True)
    if changes.upserts:
        first = next(iter(changes.upserts))
        found = f"without {len(changes.upserts)} of {len(want)} entries, such as that of {first}"
        yield Fault(PART, f"the map {name}", found)
    if changes.deletes:
        found = f"one with {len(changes.deletes)} entries of no node, such as that of "
        yield Fault(PART, f"the map {name}", f"{found}{changes.deletes[0]}")
