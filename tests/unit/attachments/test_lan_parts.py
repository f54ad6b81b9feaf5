# SPDX-License-Identifier: Apache-2.0
"""pycni/attachments/on_lan/parts.py: no two nodes have one address of a range that they share."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pycni.attachments.on_lan import parts
from pycni.cluster import IPNetwork
from pycni.errors import InvalidConfig
from pycni.ipam.ranges import Range
from pycni.node.record import Node

CLUSTER = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))
FOUR = Range(ip_network("192.0.2.0/24"), ip_address("192.0.2.64"), ip_address("192.0.2.99"))
SIX = Range(ip_network("2001:db8::/64"), ip_address("2001:db8::100"), ip_address("2001:db8::1ff"))


def node(*pod_cidrs: str) -> Node:
    cidrs: tuple[IPNetwork, ...] = tuple(map(ip_network, pod_cidrs))
    vtep = ip_address("192.0.2.1")
    return Node("n", 1, vtep, cidrs, CLUSTER, uplink="eth0", mtu=1450, port=4789)


@pytest.mark.parametrize(
    ("pod_cidr", "first", "last"),
    [
        ("10.244.0.0/24", "192.0.2.64", "192.0.2.79"),
        ("10.244.1.0/24", "192.0.2.80", "192.0.2.95"),
        ("10.244.2.0/24", "192.0.2.96", "192.0.2.99"),
    ],
)
def test_a_nodes_part_follows_from_its_pod_cidr(pod_cidr: str, first: str, last: str) -> None:
    part = parts.of_node(FOUR, 16, node(pod_cidr))

    assert (str(part.first), str(part.last)) == (first, last)


def test_each_family_has_its_own_number_if_the_node_has_it() -> None:
    both = node("10.244.1.0/24", "fd00:10:244:3::/64")

    assert str(parts.of_node(SIX, 16, both).first) == "2001:db8::130"
    assert str(parts.of_node(SIX, 16, node("10.244.1.0/24")).first) == "2001:db8::110"


def test_a_node_behind_the_end_of_the_range_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="no part") as raised:
        parts.of_node(FOUR, 16, node("10.244.3.0/24"))

    assert "3 parts of 16" in raised.value.details
