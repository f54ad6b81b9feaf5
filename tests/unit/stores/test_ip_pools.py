# SPDX-License-Identifier: Apache-2.0
"""pycni/stores/ip_pools.py: which pools count, and the order in which a node looks for a block."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from itertools import islice

import pytest

from pycni.stores.ip_pools import IPPool, Pools
from unit.stores.stores_in_tests import CLUSTER, NODE_ONE, NODE_TWO

NODES = 150
"""In a pool of 256 blocks: 60 percent."""


def pool(name: str, cidr: str, *, age: int = 0, **labels: str) -> IPPool:
    return IPPool(name, ip_network(cidr), False, tuple(labels.items()), (age, name))


def checked(*found: IPPool) -> Pools:
    return Pools.checked(found, CLUSTER, broken={})


def test_pools_are_used_in_the_order_of_their_age() -> None:
    young, old = pool("a", "10.244.0.0/17", age=2), pool("b", "10.244.128.0/17", age=1)

    assert checked(young, old) == Pools((old, young))


@pytest.mark.parametrize(
    ("cidr", "reason"),
    [
        ("10.0.0.0/8", "its CIDR 10.0.0.0/8 is not in the cluster's CIDRs"),
        ("10.245.0.0/18", "its CIDR 10.245.0.0/18 is not in the cluster's CIDRs"),
        ("2001:db8::/56", "its CIDR 2001:db8::/56 is not in the cluster's CIDRs"),
        ("10.244.0.0/25", "its CIDR 10.244.0.0/25 is smaller than a block, a /24"),
        ("fd00:10:244::/65", "its CIDR fd00:10:244::/65 is smaller than a block, a /64"),
    ],
)
def test_a_pool_that_does_not_fit_the_cluster_is_set_aside(cidr: str, reason: str) -> None:
    good = pool("good", "10.244.0.0/18")

    assert checked(good, pool("bad", cidr, age=9)) == Pools((good,), {"bad": reason})


def test_of_two_pools_that_overlap_the_older_one_counts() -> None:
    old, young = pool("z", "10.244.0.0/18", age=1), pool("a", "10.244.32.0/20", age=2)
    reason = "its CIDR 10.244.32.0/20 overlaps 10.244.0.0/18 of the older pool z"

    assert checked(young, old) == checked(old, young) == Pools((old,), {"a": reason})


def test_of_two_pools_of_one_second_all_nodes_choose_the_same() -> None:
    one, two = pool("a", "10.244.0.0/18"), pool("b", "10.244.0.0/19")

    assert list(checked(two, one).set_aside) == list(checked(one, two).set_aside) == ["b"]


def test_pools_of_two_families_do_not_overlap() -> None:
    found = checked(pool("four", "10.244.0.0/16"), pool("six", "fd00:10:244::/56"))

    assert found.set_aside == {}
    assert [one.name for one in found.of_family(6)] == ["six"]


def test_a_node_must_have_all_labels_of_a_selector() -> None:
    one = pool("a", "10.244.0.0/18", zone="a", disk="ssd")

    assert one.refusal({"zone": "a", "disk": "ssd", "more": "x"}) == ""
    assert one.refusal({"zone": "a"}) == "for Nodes with other labels"
    assert pool("b", "10.244.0.0/18").refusal({}) == ""


@pytest.mark.parametrize(
    ("cidr", "length"),
    [("10.244.0.0/16", 24), ("10.244.7.0/24", 24), ("10.244.0.0/23", 24), ("fd00::/56", 64)],
)
def test_every_block_is_a_candidate_once(cidr: str, length: int) -> None:
    for node in (NODE_ONE, NODE_TWO):
        found = list(pool("a", cidr).candidates(length, node))

        assert sorted(found) == list(ip_network(cidr).subnets(new_prefix=length))


def test_a_node_looks_in_the_same_order_each_time_and_two_nodes_in_another() -> None:
    whole = pool("a", "10.244.0.0/16")
    one, again, two = (list(islice(whole.candidates(24, node), 5))
                       for node in (NODE_ONE, NODE_ONE, NODE_TWO))  # fmt: skip

    assert one == again != two


def test_the_blocks_of_an_endless_pool_are_not_counted_out() -> None:
    wide = IPPool("a", ip_network("fd00::/8"), False, (), (0, ""))

    assert len(list(islice(wide.candidates(64, NODE_ONE), 3))) == 3


def test_nodes_that_join_at_once_seldom_try_the_same_block() -> None:
    """K nodes that take the first free one would make K * K / 2 tries."""
    whole, taken, tries = pool("a", "10.244.0.0/16"), set(), Counter[str]()
    for number in range(NODES):
        for block in whole.candidates(24, f"node-{number}"):
            tries[f"node-{number}"] += 1
            if block not in taken:
                taken.add(block)
                break

    assert tries.total() < 1.8 * NODES
    assert max(tries.values()) < 16
