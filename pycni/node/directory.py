# SPDX-License-Identifier: Apache-2.0
"""Which address belongs to which node: the map `nodes`.

A node has more addresses than its VTEP: of the other IP version, of other interfaces, virtual ones.
Pods and nodes reach each other at all of them through the overlay. Who has an address:

1. the node whose VTEP it is,
2. this node, if it has the address,
3. the one other node that has it. If several have it, as Docker's bridge has the same address on
   each of them, or while a virtual address moves, nobody does: the host's stack decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.dataplane.reconcile import apply
from pycni.stores import NodeRecord


class Directory:
    """The addresses of all nodes whose records are believed."""

    def __init__(self, own_name: str, records: Iterable[NodeRecord] = ()) -> None:
        self._own_name = own_name
        self._records: dict[str, NodeRecord] = {}
        self._holders: dict[IPAddress, NodeRecord | dict[str, NodeRecord]] = {}
        """By address: the node that has it; by its name, if there are several."""
        self._changed: set[IPAddress] = set()
        for record in records:
            self.change((), (record,))
            self._changed.clear()  # what was there at first is no change

    def change(self, before: Iterable[NodeRecord], after: Iterable[NodeRecord]) -> None:
        """Take in nodes that changed, as they were and as they are; peers.py tells of both."""
        now = {record.name: record for record in after}
        for record in before:
            if record.name not in now:
                self._forget(record.name)
        for name, record in now.items():
            if self._records.get(name) != record:
                self._forget(name)
                self._know(record)

    @property
    def entries(self) -> dict[IPAddress, IPAddress]:
        """The VTEP of the node that has an address, for all that somebody has."""
        found = ((address, self._owner(address)) for address in self._holders)
        return {address: vtep for address, vtep in found if vtep is not None}

    @property
    def others(self) -> dict[IPAddress, IPAddress]:
        """The same, without those of this node."""
        own = self._records.get(self._own_name)
        entries = self.entries
        for address in [one for one, vtep in entries.items() if own and vtep == own.vtep]:
            del entries[address]
        return entries

    def take_changes(self) -> dict[IPAddress, IPAddress | None]:
        """Addresses that may belong to another node than at the last call, each with the VTEP of
        the node that has it now."""
        changed, self._changed = self._changed, set()
        return {address: self._owner(address) for address in changed}

    def _owner(self, address: IPAddress) -> IPAddress | None:
        found = self._holders.get(address)
        if found is None or isinstance(found, NodeRecord):
            return None if found is None else found.vtep
        if any(one.vtep == address for one in found.values()):
            return address
        own = found.get(self._own_name)
        return None if own is None else own.vtep

    def _know(self, record: NodeRecord) -> None:
        self._records[record.name] = record
        for address in _addresses(record):
            found = self._holders.get(address)
            if found is None:
                self._holders[address] = record
            elif isinstance(found, NodeRecord):
                self._holders[address] = {found.name: found, record.name: record}
            else:
                found[record.name] = record
            self._changed.add(address)

    def _forget(self, name: str) -> None:
        record = self._records.pop(name, None)
        for address in () if record is None else _addresses(record):
            found = self._holders.pop(address)
            if isinstance(found, dict):
                del found[name]
                self._holders[address] = found if len(found) > 1 else next(iter(found.values()))
            self._changed.add(address)


def write(root: Path, entries: Mapping[IPAddress, IPAddress]) -> int:
    """Make the map agree with `entries`; returns the number of entries changed.

    `root` is the pin directory. Raises NotAvailable, or OSError with the kernel's errno.
    """
    with maps.open_nodes(root) as table:
        changes = table.plan(entries, synced=True)
        apply(changes, table)
    return len(changes.upserts) + len(changes.deletes)


def write_changes(root: Path, changes: Mapping[IPAddress, IPAddress | None]) -> None:
    """Write some entries, and remove those of nobody. As `write`."""
    if not changes:
        return
    with maps.open_nodes(root) as table:
        for address, vtep in changes.items():
            if vtep is None:
                table.remove(address)
            else:
                table.put(address, vtep)


def _addresses(record: NodeRecord) -> set[IPAddress]:
    return {record.vtep, *record.addresses}
