# SPDX-License-Identifier: Apache-2.0
"""pycni/node/directory.py: who has an address of which several records speak."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import permutations

from pycni.node.directory import Directory
from pycni.stores import NodeRecord

VIP, DOCKER = ip_address("192.0.2.77"), ip_address("172.17.0.1")
US = NodeRecord("us", 1, ip_address("192.0.2.1"), (ip_network("10.244.0.0/24"),))
TWO = NodeRecord("two", 2, ip_address("192.0.2.2"), (ip_network("10.244.1.0/24"),))
THREE = NodeRecord("three", 3, ip_address("192.0.2.3"), (ip_network("10.244.2.0/24"),))
VTEPS = {one.vtep: one.vtep for one in (US, TWO, THREE)}


def having(record: NodeRecord, *addresses: object) -> NodeRecord:
    return replace(record, addresses=(record.vtep, *addresses))


def test_all_addresses_of_a_node_are_at_its_vtep() -> None:
    far6 = ip_address("2001:db8::2")

    known = Directory("us", [US, having(TWO, far6, VIP), THREE])

    assert known.entries == VTEPS | {far6: TWO.vtep, VIP: TWO.vtep}
    assert known.others == {
        TWO.vtep: TWO.vtep,
        THREE.vtep: THREE.vtep,
        far6: TWO.vtep,
        VIP: TWO.vtep,
    }


def test_a_record_of_an_older_release_has_its_vtep() -> None:
    assert Directory("us", [US, TWO, THREE]).entries == VTEPS


def test_an_address_that_several_other_nodes_have_is_nobodys() -> None:
    for order in permutations([US, having(TWO, DOCKER), having(THREE, DOCKER)]):
        assert Directory("us", order).entries == VTEPS


def test_an_address_that_this_node_has_is_its_own() -> None:
    for order in permutations([having(US, DOCKER), having(TWO, DOCKER), THREE]):
        assert Directory("us", order).entries == VTEPS | {DOCKER: US.vtep}


def test_a_vtep_is_that_nodes_whoever_else_has_the_address() -> None:
    for order in permutations([having(US, TWO.vtep), TWO, having(THREE, TWO.vtep)]):
        assert Directory("us", order).entries == VTEPS


def test_a_virtual_address_that_moves_is_nobodys_in_between() -> None:
    known = Directory("us", [US, having(TWO, VIP), THREE])
    known.take_changes()

    known.change([THREE], [having(THREE, VIP)])
    between = known.take_changes()
    known.change([having(TWO, VIP)], [having(TWO)])
    after = known.take_changes()

    assert between[VIP] is None
    assert after[VIP] == THREE.vtep


def test_what_changed_is_told_once() -> None:
    known = Directory("us", [US, having(TWO, VIP)])
    known.take_changes()

    known.change([having(TWO, VIP)], [having(TWO, VIP), US])
    assert known.take_changes() == {}
    known.change([having(TWO, VIP)], [US])
    assert known.take_changes() == {TWO.vtep: None, VIP: None}
    known.change([having(TWO, VIP)], [])
    assert known.take_changes() == {}


def test_a_node_that_gets_another_vtep_takes_its_addresses_along() -> None:
    known = Directory("us", [US, having(TWO, VIP)])
    known.take_changes()
    moved = ip_address("192.0.2.9")

    known.change([having(TWO, VIP)], [having(replace(TWO, vtep=moved), VIP)])

    assert known.take_changes() == {TWO.vtep: None, moved: moved, VIP: moved}
