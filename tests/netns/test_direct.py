# SPDX-License-Identifier: Apache-2.0
"""Nodes that send to each other without VXLAN, beside one behind a router that gets it.

Nodes one and two are on one link, node three is behind a router. PYCNI_MATRIX=whole does everything
over both underlays (`make test-modes`), otherwise over IPv4.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from loader import attach
from netns.test_path_mtu import FORWARDING, ROUTERS, write_parameters
from pycni.dataplane import dumps
from pycni.kernel.routes import Route
from pycni.kernel.rtnl import Rtnl
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, NODE_UPLINK, POD_IFNAME, WORLD, LabNode, Pod
from pycni.lab.topology import open_rtnl
from pycni.node import next_hops, overlay, report
from pycni.settings import load
from pycni.stores import DIRECT
from pycni.upkeep import hooks
from support.flood import Flood, unanswered
from support.flows import FAMILIES, answering, ask, pumping, running, send_frames
from support.kernel import open_iproute
from support.labs import made_pod, prepared_lab, pycni, within, write_settings
from support.matrix import exchange_between, plan
from support.plugin import execute
from support.underlay import STRANGER_MAC, far_end, ip, mac, second_link
from support.waiting import wait_until

UPLINK_MTU = 1500
OVERHEAD = {4: 50, 6: 70}
HOST_PORT = 18080
SECOND = "eth7"

both_families = pytest.mark.parametrize("family", FAMILIES)


@dataclass(frozen=True)
class Nodes:
    """Three nodes: one has two pods, the others one each at least."""

    lab: Lab
    underlay: int

    @property
    def one(self) -> LabNode:
        return self.lab.layout.nodes[0]

    @property
    def two(self) -> LabNode:
        return self.lab.layout.nodes[1]

    @property
    def routed(self) -> LabNode:
        return self.lab.layout.nodes[2]

    def vtep(self, node: LabNode) -> str:
        return next(str(one.ip) for one in node.underlay if one.version == self.underlay)

    def pod(self, pod: Pod, family: int) -> str:
        return next(one for one in self.lab.addresses(pod) if ip_address(one).version == family)

    def modes(self, node: LabNode) -> dict[str, str]:
        """How packets leave to the other nodes, by VTEP."""
        found = next_hops.modes(load(node.settings_path))
        return {str(vtep): mode for vtep, mode in found.items()}

    def left_directly(self, node: LabNode) -> int:
        """Packets that left without VXLAN so far."""
        found = dumps.dump(load(node.settings_path).pin_root, "forwarded")[0]
        return sum(row["packets"] for row in found if dumps.spelled(row["path"]) == "DIRECT")

    def dropped(self) -> Counter[str]:
        """What `from_underlay` of node one dropped so far, by reason."""
        found = dumps.dump(load(self.one.settings_path).pin_root, "drops")[0]
        counts = Counter[str]()
        for row in found:
            if row["program"] == "from_underlay":
                counts[dumps.spelled(row["reason"])] += row["packets"]
        return counts


@pytest.fixture(
    scope="module",
    params=(4, 6) if os.environ.get("PYCNI_MATRIX") == "whole" else (4,),
    ids=lambda underlay: f"IPv{underlay} underlay",
)
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    with prepared_lab(nodes=3, pods=2, encap="direct") as lab:
        made = Nodes(lab, request.param)
        within(lab.layout.underlay_netns, lambda: write_parameters(FORWARDING))
        for node in lab.layout.nodes:
            write_settings(node, vtep=made.vtep(node))
        for node in (made.one, made.two):
            for here, there in ((node, made.routed), (made.routed, node)):
                route_by_router(made, here, there)
        for node in lab.layout.nodes:
            lab.start_agent(node)
        for node in lab.layout.nodes:
            cluster.wait_for_agent(lab, node)
        cluster.wait_for_members(lab)
        for pod in lab.layout.pods:
            lab.attach(pod)
        wait_for_modes(made)
        yield made


def route_by_router(nodes: Nodes, here: LabNode, there: LabNode) -> None:
    with open_rtnl(here.netns) as ipr:
        to, router = ip_network(nodes.vtep(there)), ROUTERS[nodes.underlay]
        ipr.add_route(Route(to, ipr.ifindex(NODE_UPLINK), router))


def wait_for_modes(nodes: Nodes) -> None:
    """Until the two nodes on one link send to each other without VXLAN."""

    def ready() -> bool:
        others = (nodes.vtep(nodes.two), nodes.vtep(nodes.routed))
        unanswered(nodes.lab, nodes.one.netns, others, count=1)
        there = nodes.modes(nodes.one).get(nodes.vtep(nodes.two))
        return (there, nodes.modes(nodes.two).get(nodes.vtep(nodes.one))) == (DIRECT, DIRECT)

    wait_until(ready, "the nodes send to each other without VXLAN")


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


# Attacks


def ping(source: str, target: str) -> Packet:
    if ":" in source:
        return IPv6(src=source, dst=target) / ICMPv6EchoRequest()
    return IP(src=source, dst=target) / ICMP()


@dataclass(frozen=True)
class Attack:
    """Whose MAC and whose address a packet has, and by which interface it comes."""

    sender: str
    source: str
    reason: str
    ifname: str = NODE_UPLINK


ATTACKS = (
    Attack("a stranger", "a pod of two", "WRONG_NEIGHBOUR"),
    Attack("node two", "a pod of three", "WRONG_NEIGHBOUR"),
    Attack("the router", "a pod of three", "WRONG_NEIGHBOUR"),
    Attack("node two", "a pod of two", "WRONG_NEIGHBOUR", SECOND),
    Attack("node two", "a pod of one", "SPOOFED_INNER"),
    Attack("node two", "nobody", "SPOOFED_INNER"),
    Attack("nobody", "a pod of two", "WRONG_NEIGHBOUR"),
)
"""The n-th comes 2^n times: what is counted tells which of them were refused."""


@pytest.fixture
def second(nodes: Nodes) -> Iterator[None]:
    """Node one has an interface to another link, with its program."""
    with second_link(nodes.lab, nodes.one, SECOND):
        ip(nodes.one.netns, "address", "add", "198.51.100.1/24", "dev", SECOND)
        wait_until(lambda: has_program(nodes.one.netns, SECOND), "the interface has its program")
        yield


def has_program(netns: str, ifname: str) -> bool:
    def look() -> bool:
        with Rtnl() as ipr:
            return hooks.OUTSIDE in attach.attached(ipr, ipr.ifindex(ifname))

    return within(netns, look)


@both_families
@pytest.mark.usefixtures("second")
def test_who_is_not_the_node_of_the_source_is_refused(nodes: Nodes, family: int) -> None:
    pods, underlay = nodes.lab.layout.pods, nodes.lab.layout.underlay_netns
    sources = {
        "a pod of one": nodes.pod(pods[1], family),
        "a pod of two": nodes.pod(pods[2], family),
        "a pod of three": nodes.pod(pods[4], family),
        "nobody": {4: "10.244.200.9", 6: "fd00:10:244:c8::9"}[family],
    }
    macs = {
        "a stranger": STRANGER_MAC,
        "node two": mac(nodes.two.netns, NODE_UPLINK),
        "the router": mac(underlay, BRIDGE),
        "nobody": "00:00:00:00:00:00",
    }
    before, expected = nodes.dropped(), Counter[str]()

    for number, attack in enumerate(ATTACKS):
        head = Ether(src=macs[attack.sender], dst=mac(nodes.one.netns, attack.ifname))
        frame = bytes(head / ping(sources[attack.source], nodes.pod(pods[0], family)))
        by = BRIDGE if attack.ifname == NODE_UPLINK else far_end(attack.ifname)
        send_frames(underlay, by, [frame] * 2**number)
        expected[attack.reason] += 2**number

    wait_until(lambda: nodes.dropped() - before == expected, "all of them are counted as refused")


@both_families
def test_a_packet_of_a_vlan_reaches_nobody(nodes: Nodes, family: int) -> None:
    source, target = nodes.lab.layout.pods[2], nodes.lab.layout.pods[0]
    packet = ping(nodes.pod(source, family), nodes.pod(target, family))
    head = Ether(src=mac(nodes.two.netns, NODE_UPLINK), dst=mac(nodes.one.netns, NODE_UPLINK))
    tagged = bytes(head / Dot1Q(vlan=7) / packet / Raw(b"tagged"))
    plain = bytes(head / packet / Raw(b"plain."))
    with running(target.netns, "capture", POD_IFNAME) as receiver:
        assert receiver.heard() == "ready"
        send_frames(nodes.two.netns, NODE_UPLINK, [tagged, plain])
        receiver.tell()
        heard: list[Any] = receiver.heard()

    assert any(b"plain.".hex() in str(one).replace(" ", "") for one in heard)
    assert not any(b"tagged".hex() in str(one).replace(" ", "") for one in heard)


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
