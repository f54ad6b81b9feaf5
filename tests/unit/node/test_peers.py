# SPDX-License-Identifier: Apache-2.0
"""What events of the store make of the tables, decided purely."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from pycni.dataplane.maps import Vtep
from pycni.node.peers import Membership, RejectionNews, wanted_remotes, wanted_vteps
from pycni.stores import (
    DIRECT,
    NodeRecord,
    Put,
    Rejected,
    Removed,
    Synced,
)

NODE_ONE = NodeRecord(
    "one",
    1,
    ip_address("192.0.2.1"),
    (ip_network("10.244.0.0/24"), ip_network("fd00:10:244::/64")),
)
NODE_TWO = NodeRecord(
    "two",
    2,
    ip_address("192.0.2.2"),
    (ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
)
NODE_THREE = NodeRecord("three", 3, ip_address("192.0.2.3"), (ip_network("10.244.2.0/24"),))


def test_a_node_is_not_its_own_neighbour() -> None:
    members = Membership("one")

    members.feed(Put(NODE_ONE.name, NODE_ONE))
    members.feed(Put(NODE_TWO.name, NODE_TWO))

    assert members.others == [NODE_TWO]


def test_other_nodes_survive_one_nodes_update() -> None:
    members = Membership("one")
    moved = NodeRecord("two", 2, ip_address("192.0.2.9"), NODE_TWO.pod_cidrs)

    for event in (
        Put(NODE_TWO.name, NODE_TWO),
        Put(NODE_THREE.name, NODE_THREE),
        Synced(),
        Put(moved.name, moved),
    ):
        members.feed(event)

    assert members.others == [moved, NODE_THREE]


def test_a_node_that_left_is_gone_and_the_others_stay() -> None:
    members = Membership("one")

    for event in (
        Put(NODE_TWO.name, NODE_TWO),
        Put(NODE_THREE.name, NODE_THREE),
        Synced(),
        Removed("two"),
        Removed("nobody"),
    ):
        members.feed(event)

    assert members.others == [NODE_THREE]


def test_changes_are_those_since_they_were_last_taken() -> None:
    members = Membership("one")
    moved = replace(NODE_TWO, vtep=ip_address("192.0.2.9"))
    for event in (
        Put(NODE_ONE.name, NODE_ONE),
        Put(NODE_TWO.name, NODE_TWO),
        Put(NODE_THREE.name, NODE_THREE),
        Synced(),
    ):
        members.feed(event)

    assert members.take_changes() == ([], [NODE_TWO, NODE_THREE])
    assert members.take_changes() == ([], [])

    for later in (
        Removed("three"),
        Removed("nobody"),
        Put(NODE_TWO.name, NODE_TWO),
        Put(moved.name, moved),
        Synced(),
    ):
        members.feed(later)

    assert members.take_changes() == ([NODE_THREE, NODE_TWO], [moved])


def test_a_store_without_this_node_is_known_for_it() -> None:
    members = Membership("one")
    ours = NodeRecord("one", 1, ip_address("192.0.2.1"), ())

    for event, known in (
        (Put(NODE_TWO.name, NODE_TWO), False),
        (Synced(), False),
        (Put(ours.name, ours), True),
        (Removed("one"), False),
    ):
        members.feed(event)
        assert members.knows_us is known


def test_one_vtep_a_node_and_one_remote_a_node_and_family() -> None:
    nodes = [NODE_TWO, replace(NODE_THREE, accepts=(DIRECT,))]

    assert wanted_vteps(nodes) == {NODE_TWO.vtep: Vtep(2), NODE_THREE.vtep: Vtep(3, direct=True)}
    assert wanted_remotes(nodes) == {
        NODE_TWO.pod_cidrs[0]: NODE_TWO.vtep,
        NODE_TWO.pod_cidrs[1]: NODE_TWO.vtep,
        NODE_THREE.pod_cidrs[0]: NODE_THREE.vtep,
    }


def test_what_a_node_published_is_a_remote_of_its_own() -> None:
    extra = ip_network("10.215.0.33/32")

    remotes = wanted_remotes([replace(NODE_THREE, extra=(extra,))])

    assert remotes == {NODE_THREE.pod_cidrs[0]: NODE_THREE.vtep, extra: NODE_THREE.vtep}


def test_each_further_block_of_a_node_is_a_remote_of_its_own() -> None:
    block = ip_network("10.244.77.0/24")

    remotes = wanted_remotes([replace(NODE_THREE, blocks=(block,))])

    assert remotes == {NODE_THREE.pod_cidrs[0]: NODE_THREE.vtep, block: NODE_THREE.vtep}


def test_a_node_whose_record_is_rejected_is_gone_until_it_is_valid_again() -> None:
    members = Membership("one")
    for event in (Put("two", NODE_TWO), Put("three", NODE_THREE), Synced()):
        members.feed(event)
    members.take_changes()

    members.feed(Rejected("two", "its VTEP is odd"))

    assert members.others == [NODE_THREE]
    assert members.rejected == {"two": "its VTEP is odd"}
    assert members.take_changes() == ([NODE_TWO], [])

    members.feed(Put("two", NODE_TWO))

    assert members.rejected == {}
    assert members.take_changes() == ([], [NODE_TWO])


def test_a_rejected_record_that_is_removed_is_not_rejected_any_more() -> None:
    members = Membership("one")
    members.feed(Rejected("two", "its VTEP is odd"))

    members.feed(Removed("two"))

    assert members.rejected == {}
    assert members.others == []


def test_a_node_whose_own_record_is_rejected_believes_nothing() -> None:
    members = Membership("one")
    members.feed(Put("one", NODE_ONE))

    members.feed(Rejected("one", "its id 1 is that of two"))

    assert not members.knows_us


def test_each_rejection_and_each_recovery_is_news_once() -> None:
    news = RejectionNews()

    assert news.take({"two": "odd", "three": "odder"}) == [("three", "odder"), ("two", "odd")]
    assert news.take({"two": "odd", "three": "odder"}) == []
    assert news.take({"two": "strange"}) == [("three", ""), ("two", "strange")]
    assert news.take({}) == [("two", "")]
    assert news.take({}) == []
