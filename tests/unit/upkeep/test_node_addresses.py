# SPDX-License-Identifier: Apache-2.0
"""pycni/upkeep/node_addresses.py: what map and nftables sets are told, and in which cases."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.dataplane import maps
from pycni.dataplane.reconcile import plan
from pycni.errors import NotAvailable
from pycni.faults import Fault
from pycni.node.directory import Directory
from pycni.pods import port_table
from pycni.stores import NodeRecord
from pycni.upkeep import node_addresses
from pycni.upkeep.description import Description

ROOT = Path("/nowhere")
US = NodeRecord("us", 1, ip_address("192.0.2.1"), (ip_network("10.244.0.0/24"),))
FAR6 = ip_address("2001:db8::2")
TWO = NodeRecord(
    "two", 2, ip_address("192.0.2.2"), (ip_network("10.244.1.0/24"),), (),
    (ip_address("192.0.2.2"), FAR6),
)  # fmt: skip
OWN6 = ip_address("2001:db8::1")


class Table(dict[Any, Any]):
    """A pinned map."""

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def put(self, key: Any, value: Any) -> None:
        self[key] = value

    def remove(self, key: Any) -> None:
        self.pop(key, None)

    def stream(self) -> Any:
        return iter(self.items())

    def plan(self, want: Any, *, synced: bool) -> Any:
        return plan(self, want, synced=synced)


class Sets:
    """The sets of the nftables table."""

    def __init__(self) -> None:
        self.elements: set[Any] = set()
        self.is_gone = False

    def write(self, addresses: Iterable[Any]) -> None:
        self._check()
        self.elements = set(addresses)

    def change(self, *, create: Iterable[Any], delete: Iterable[Any]) -> None:
        self._check()
        self.elements = (self.elements - set(delete)) | set(create)

    def read(self) -> set[Any]:
        self._check()
        return self.elements

    def has(self, addresses: Collection[Any]) -> bool:
        return not self.is_gone and self.elements == addresses

    def _check(self) -> None:
        if self.is_gone:
            raise NotAvailable("there is no table")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(nodes=Table(), sets=Sets())
    own = Table({None: maps.Self(US.vtep, 0)})
    monkeypatch.setattr(maps, "open_nodes", lambda _: found.nodes)
    monkeypatch.setattr(maps, "open_self", lambda _: own)
    monkeypatch.setattr(port_table, "write_nodes", found.sets.write)
    monkeypatch.setattr(port_table, "change_nodes", found.sets.change)
    monkeypatch.setattr(port_table, "nodes", found.sets.read)
    monkeypatch.setattr(port_table, "has_nodes", found.sets.has)
    return found


NOTHING: Any = None
"""Of what else is seen, nothing is asked."""


def description(*nodes: NodeRecord) -> Description:
    """Of this node, with the nodes that the store lists; none: that is not known."""
    settings = SimpleNamespace(pin_root=ROOT)
    return Description(settings, SimpleNamespace(name="us"), nodes or None)  # type: ignore[arg-type]


def faults(*nodes: NodeRecord) -> list[Fault]:
    return list(node_addresses.faults(description(*nodes), NOTHING))


def test_the_sets_have_what_is_others(kernel: SimpleNamespace) -> None:
    assert node_addresses.write(ROOT, Directory("us", [US, TWO])) == 3

    assert kernel.nodes == {US.vtep: US.vtep, TWO.vtep: TWO.vtep, FAR6: TWO.vtep}
    assert kernel.sets.elements == {TWO.vtep, FAR6}
    assert faults(US, TWO) == []


def test_changes_reach_both(kernel: SimpleNamespace) -> None:
    node_addresses.write(ROOT, Directory("us", [US, TWO]))

    node_addresses.write_changes(ROOT, {FAR6: None, OWN6: US.vtep})

    assert kernel.nodes == {US.vtep: US.vtep, TWO.vtep: TWO.vtep, OWN6: US.vtep}
    assert kernel.sets.elements == {TWO.vtep}


def test_without_the_table_the_map_is_written_and_the_sets_wait(kernel: SimpleNamespace) -> None:
    kernel.sets.is_gone = True
    node_addresses.write(ROOT, Directory("us", [US]))
    node_addresses.write_changes(ROOT, {TWO.vtep: TWO.vtep})
    kernel.sets.is_gone = False

    (fault,) = faults()
    node_addresses.mend(description(), NOTHING)

    assert kernel.nodes[TWO.vtep] == TWO.vtep
    assert fault.found == "without 1 of 1 addresses of other nodes"
    assert kernel.sets.elements == {TWO.vtep}
    assert faults() == []


def test_a_map_that_is_not_as_the_store_says_is_mended(kernel: SimpleNamespace) -> None:
    node_addresses.write(ROOT, Directory("us", [US, TWO]))
    del kernel.nodes[FAR6]
    kernel.nodes[TWO.vtep] = US.vtep

    of_map, of_sets = faults(US, TWO)
    node_addresses.mend(description(US, TWO), NOTHING)

    assert of_map.found == "without 2 entries, and with 0 that are wrong"
    assert of_sets.found == "without 0 of 0 addresses of other nodes, and with 2 that are no node's"
    assert faults(US, TWO) == []


def test_what_belongs_to_nobody_is_said(kernel: SimpleNamespace) -> None:
    node_addresses.write(ROOT, Directory("us", [US, TWO]))

    (fault,) = faults(US)

    assert fault.found == "without 0 entries, and with 2 that are wrong"
    assert kernel.nodes[FAR6] == TWO.vtep


def test_a_table_that_is_gone_is_another_parts_fault(kernel: SimpleNamespace) -> None:
    node_addresses.write(ROOT, Directory("us", [US, TWO]))
    kernel.sets.is_gone = True

    assert faults(US, TWO) == []
