# SPDX-License-Identifier: Apache-2.0
"""Nodes that send to each other without VXLAN, beside one behind a router that gets it.

Nodes one and two are on one link, node three is behind a router. PYCNI_MATRIX=whole does everything
over both underlays (`make test-modes`), otherwise over IPv4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pycni.lab.layout import NODE_UPLINK
from support.flood import Flood
from support.flows import FAMILIES
from support.labs import pycni
from support.matrix import IP_HEADER, exchange_between
from support.on_link import UNDERLAYS, Nodes, nodes_on_link
from support.underlay import ip

UPLINK_MTU = 1500

both_families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(
    scope="module",
    params=UNDERLAYS,
    ids=lambda underlay: f"IPv{underlay} underlay",
)
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    with nodes_on_link(request.param) as made:
        yield made


# What is said


def test_a_node_behind_a_router_is_named_with_what_to_do(nodes: Nodes) -> None:
    modes = {row["name"]: row["mode"] for row in nodes.lab.pycni(nodes.one, "nodes")}
    assert modes == {"node1": None, "node2": "direct", "node3": "vxlan"}
    found = json.loads(pycni(nodes.one, "status", "-o", "json").stdout)
    by_name = {row["name"]: row for row in found}

    assert by_name["direct"]["state"] == "degraded"
    assert "node node3 is behind the router" in by_name["direct"]["cause"]
    assert "auto-direct" in by_name["direct"]["to_do"]
    assert "direct: 1 of 2 nodes without VXLAN; 1 by VXLAN" in by_name["encap"]["cause"]


def test_nodes_that_ask_each_other_get_answers(nodes: Nodes) -> None:
    nodes.wait_for_answers()


# Without an agent, without a neighbour


def flooded(nodes: Nodes, count: int) -> None:
    """Packets from the moment on at which the kernels have forgotten their neighbours."""
    source, target = nodes.lab.layout.pods[0], nodes.lab.layout.pods[2]
    before = nodes.left_directly(nodes.one)
    for node, other in ((nodes.one, nodes.two), (nodes.two, nodes.one)):
        ip(node.netns, "neigh", "del", nodes.vtep(other), "dev", NODE_UPLINK)
    with Flood(source, nodes.lab.addresses(target), count=count) as flood:
        lost = flood.lost()

    assert set(lost.values()) == {0}
    assert nodes.left_directly(nodes.one) - before > count


def test_a_neighbour_that_the_kernel_has_forgotten_costs_no_packet(nodes: Nodes) -> None:
    flooded(nodes, 200)


@both_families
def test_a_long_packet_arrives_while_the_kernel_asks_for_the_neighbour(
    nodes: Nodes, family: int
) -> None:
    """Where it has to leave as VXLAN meanwhile, it is cut."""
    source, target = nodes.lab.layout.pods[0], nodes.lab.layout.pods[2]
    size = UPLINK_MTU - IP_HEADER[family] - 8
    for _ in range(3):
        ip(nodes.one.netns, "neigh", "del", nodes.vtep(nodes.two), "dev", NODE_UPLINK)
        done = exchange_between(
            source.netns, target.netns, nodes.pod(target, family), [("udp", size, 0)]
        )
        assert done.came == done.sent


def test_without_agents_the_kernel_finds_the_way(nodes: Nodes) -> None:
    """The lease of the next hops ends, and the kernel forgets the neighbours."""
    with nodes.without_agents(nodes.one, nodes.two):
        flooded(nodes, 500)
