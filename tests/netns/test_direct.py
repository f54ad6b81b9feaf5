# SPDX-License-Identifier: Apache-2.0
"""Nodes that send to each other without VXLAN, beside one behind a router that gets it.

Nodes one and two are on one link, node three is behind a router. PYCNI_MATRIX=whole does everything
over both underlays (`make test-modes`), otherwise over IPv4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pycni.lab import cluster
from pycni.lab.layout import NODE_UPLINK, POD_IFNAME, WORLD
from pycni.node import next_hops, overlay, report
from pycni.settings import load
from support.flood import Flood
from support.flows import FAMILIES, answering, ask, pumping
from support.kernel import open_iproute
from support.labs import made_pod, pycni
from support.matrix import exchange_between, plan
from support.on_link import UNDERLAYS, Nodes, nodes_on_link
from support.plugin import execute
from support.underlay import ip
from support.waiting import wait_until

UPLINK_MTU = 1500
OVERHEAD = {4: 50, 6: 70}
HOST_PORT = 18080
SECOND = "eth7"

both_families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(
    scope="module",
    params=UNDERLAYS,
    ids=lambda underlay: f"IPv{underlay} underlay",
)
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    with nodes_on_link(request.param) as made:
        yield made


# Forwarding


@both_families
@pytest.mark.parametrize(
    ("source", "target", "carries"),
    [(0, 1, UPLINK_MTU), (0, 2, UPLINK_MTU), (0, 4, 0), (4, 0, 0)],
    ids=["same node", "other node", "behind a router", "from behind a router"],
)
def test_all_sizes_and_kinds_arrive(
    nodes: Nodes, family: int, source: int, target: int, carries: int
) -> None:
    """Up to the MTU of the way, in fragments above it."""
    pods = nodes.lab.layout.pods
    mtu = carries or UPLINK_MTU - OVERHEAD[nodes.underlay]
    way = pods[source].netns, pods[target].netns, nodes.pod(pods[target], family)
    if family == 6 and not carries:
        exchange_between(*way, [("fragments", 5000, 0)])  # its sender is told, and cuts it smaller
    before = nodes.left_directly(nodes.one)

    done = exchange_between(*way, plan(family, mtu))

    assert done.came == done.sent
    assert done.bad == []
    is_direct = nodes.left_directly(nodes.one) - before > len(done.sent) / 2
    assert is_direct == (target == 2)


@both_families
def test_pods_have_the_full_mtu(nodes: Nodes, family: int) -> None:
    for pod in nodes.lab.layout.pods:
        with open_iproute(pod.netns) as ipr:
            (link,) = ipr.get_links(ifname=POD_IFNAME)
            assert link.get("IFLA_MTU") == UPLINK_MTU
    source, target = nodes.lab.layout.pods[0], nodes.lab.layout.pods[4]
    with pumping(source.netns, target.netns, nodes.pod(target, family)) as send:
        assert send() is not None  # told by ICMP of what VXLAN leaves


@both_families
def test_a_node_reaches_pods_of_the_other_and_is_seen_by_its_gateway(
    nodes: Nodes, family: int
) -> None:
    target = nodes.lab.layout.pods[2]
    before = nodes.left_directly(nodes.one)
    with answering(target.netns, nodes.pod(target, family)) as (port, _):
        seen = ask(nodes.one.netns, nodes.pod(target, family), port, size=1400)
    with pumping(nodes.one.netns, target.netns, nodes.pod(target, family)) as send:
        assert send() is not None

    with open_iproute(nodes.one.netns) as ipr:
        (device,) = ipr.link_lookup(ifname=overlay.DEVICE)
        gateways = [one.get("IFA_ADDRESS") for one in ipr.get_addr(index=device)]
    assert seen in gateways
    assert nodes.left_directly(nodes.one) > before


def test_a_pod_reaches_another_nodes_own_address(nodes: Nodes) -> None:
    source, to = nodes.lab.layout.pods[0], nodes.vtep(nodes.two)
    before = nodes.left_directly(nodes.one)
    with answering(nodes.two.netns, to) as (port, _):
        seen = ask(source.netns, to, port, size=5000)

    assert seen == nodes.pod(source, nodes.underlay)
    assert nodes.left_directly(nodes.one) > before


@both_families
def test_the_world_sees_the_node(nodes: Nodes, family: int) -> None:
    world = next(str(one) for one in WORLD if one.version == family)
    with answering(nodes.lab.layout.underlay_netns, world) as (port, _):
        seen = ask(nodes.lab.layout.pods[0].netns, world, port)

    assert seen == next(str(one.ip) for one in nodes.one.underlay if one.version == family)


def test_a_host_port_leads_to_a_pod_from_both_nodes_and_the_world(nodes: Nodes) -> None:
    ports = {"portMappings": [{"hostPort": HOST_PORT, "containerPort": 80, "protocol": "udp"}]}
    to = str(nodes.two.underlay[0].ip)
    clients = [nodes.lab.layout.pods[0].netns, nodes.one.netns, nodes.lab.layout.underlay_netns]
    with made_pod(nodes.lab, nodes.two) as pod:
        added = execute(nodes.lab, pod, "ADD", runtimeConfig=ports)
        assert added.status == 0, added.text
        address = added.document["ips"][0]["address"].partition("/")[0]
        try:
            for client in clients:
                with answering(pod.netns, address, 80):
                    assert ask(client, to, HOST_PORT) is not None, client
        finally:
            assert execute(nodes.lab, pod, "DEL", runtimeConfig=ports).status == 0


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
    def answered() -> bool:
        told = report.read_table(load(nodes.one.settings_path), report.PEERS)
        return [row["forwards"] for row in told.values()] == [True, True]

    wait_until(answered, "both other nodes answered through the overlay")


# Without an agent, without a neighbour


def forget_neighbours(nodes: Nodes) -> None:
    for node, other in ((nodes.one, nodes.two), (nodes.two, nodes.one)):
        ip(node.netns, "neigh", "del", nodes.vtep(other), "dev", NODE_UPLINK)


def test_a_neighbour_that_the_kernel_has_forgotten_costs_no_packet(nodes: Nodes) -> None:
    source, target = nodes.lab.layout.pods[0], nodes.lab.layout.pods[2]
    before = nodes.left_directly(nodes.one)
    forget_neighbours(nodes)
    with Flood(source, nodes.lab.addresses(target), count=200) as flood:
        lost = flood.lost()

    assert set(lost.values()) == {0}
    assert nodes.left_directly(nodes.one) - before > 200


def test_without_agents_the_kernel_finds_the_way(nodes: Nodes) -> None:
    """The lease of the next hops ends, and the kernel forgets the neighbours."""
    source, target = nodes.lab.layout.pods[0], nodes.lab.layout.pods[2]
    for node in (nodes.one, nodes.two):
        nodes.lab.stop_agent(node)
    try:
        settings = load(nodes.one.settings_path)
        wait_until(lambda: not next_hops.is_fresh(settings), "nobody vouches for the next hops")
        before = nodes.left_directly(nodes.one)
        forget_neighbours(nodes)
        with Flood(source, nodes.lab.addresses(target), count=500) as flood:
            lost = flood.lost()
    finally:
        for node in (nodes.one, nodes.two):
            nodes.lab.start_agent(node)
            cluster.wait_for_agent(nodes.lab, node)

    assert set(lost.values()) == {0}
    assert nodes.left_directly(nodes.one) - before > 500
