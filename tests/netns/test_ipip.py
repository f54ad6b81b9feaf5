# SPDX-License-Identifier: Apache-2.0
"""Nodes that send IPIP to each other, on one link and behind a router.

Nodes one and two are on one link, node three is behind a router. PYCNI_MATRIX=whole does everything
over both underlays (`make test-modes`), otherwise over IPv4.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from pycni.cluster import IPIP_OVERHEAD
from pycni.lab.layout import NODE_UPLINK, POD_IFNAME, WORLD
from pycni.names import GATEWAY_MAC
from pycni.node import overlay, overlay_guard
from pycni.stores import IPIP
from support.flood import Flood
from support.flows import FAMILIES, answering, ask, pumping, running, send_datagrams, send_frames
from support.kernel import open_iproute
from support.labs import made_pod, pycni, within
from support.matrix import exchange_between, plan
from support.on_link import UNDERLAYS, Nodes, nodes_on_link
from support.plugin import execute
from support.underlay import ip, mac, send_by_stranger
from support.waiting import wait_until

UPLINK_MTU = 1500
HOST_PORT = 18080
PROTOCOL = {4: 4, 6: 41}
NOBODY = {4: "10.244.200.9", 6: "fd00:10:244:c8::9"}
STRANGER = {4: "198.18.0.99", 6: "fd00:99::99"}
ELSEWHERE = {4: "203.0.113.9", 6: "2001:db8:99::9"}

both_families = pytest.mark.parametrize("family", FAMILIES)


class Tunnelled(Nodes):
    """Three nodes that send IPIP to each other, each with two pods."""

    @property
    def mtu(self) -> int:
        """Of pods."""
        return UPLINK_MTU - IPIP_OVERHEAD[self.underlay]

    def address(self, number: int, family: int) -> str:
        """Of a pod: 0 and 1 are of node one, 2 and 3 of two, 4 and 5 of three."""
        return self.pod(self.lab.layout.pods[number], family)

    def outer(self, src: str, dst: str, family: int, **fields: Any) -> Packet:
        """The outer header from one address to another, around a packet of `family`."""
        if self.underlay == 4:
            return IP(src=src, dst=dst, proto=PROTOCOL[family], **fields)
        return IPv6(src=src, dst=dst, nh=PROTOCOL[family], **fields)


@pytest.fixture(scope="module", params=UNDERLAYS, ids=lambda one: f"IPv{one} underlay")
def nodes(request: pytest.FixtureRequest) -> Iterator[Tunnelled]:
    with nodes_on_link(request.param, encap="ipip") as made:
        made.wait_for_modes(IPIP, routed=IPIP)
        yield Tunnelled(made.lab, made.underlay)


# Forwarding


@both_families
@pytest.mark.parametrize(
    ("source", "target", "counted"),
    [
        (0, 1, "from_container POD"),
        (0, 2, "from_container NODE"),
        (0, 4, "from_container NODE"),
        (4, 0, "from_underlay POD"),
    ],
    ids=["same node", "other node", "behind a router", "from behind a router"],
)
def test_all_sizes_and_kinds_arrive(
    nodes: Tunnelled, family: int, source: int, target: int, counted: str
) -> None:
    """Up to the MTU of the way, in fragments above it."""
    pods = nodes.lab.layout.pods
    before = nodes.forwarded(nodes.one)

    done = exchange_between(
        pods[source].netns,
        pods[target].netns,
        nodes.address(target, family),
        plan(family, nodes.mtu),
    )

    assert done.came == done.sent
    assert done.bad == []
    after = nodes.forwarded(nodes.one) - before
    assert after[counted] > len(done.sent) / 2, after
    assert after["from_container DEVICE"] < 5, after


@both_families
def test_pods_have_all_but_the_outer_header(nodes: Tunnelled, family: int) -> None:
    for pod in nodes.lab.layout.pods:
        with open_iproute(pod.netns) as ipr:
            (link,) = ipr.get_links(ifname=POD_IFNAME)
            assert link.get("IFLA_MTU") == nodes.mtu
    source, target = nodes.lab.layout.pods[0], nodes.lab.layout.pods[4]
    with pumping(source.netns, target.netns, nodes.address(4, family)) as send:
        assert send() is not None


@both_families
@pytest.mark.parametrize("target", [2, 4], ids=["other node", "behind a router"])
def test_a_node_reaches_pods_of_another_and_is_seen_by_its_gateway(
    nodes: Tunnelled, family: int, target: int
) -> None:
    netns, to = nodes.lab.layout.pods[target].netns, nodes.address(target, family)
    before = nodes.forwarded(nodes.one)
    with answering(netns, to) as (port, _):
        seen = ask(nodes.one.netns, to, port, size=1400)
    with pumping(nodes.one.netns, netns, to) as send:
        assert send() is not None

    with open_iproute(nodes.one.netns) as ipr:
        (device,) = ipr.link_lookup(ifname=overlay.DEVICE)
        gateways = [one.get("IFA_ADDRESS") for one in ipr.get_addr(index=device)]
    assert seen in gateways
    assert (nodes.forwarded(nodes.one) - before)["to_overlay NODE"] > 0


@pytest.mark.parametrize("size", [8, 1400, 5000])
def test_a_pod_reaches_another_nodes_own_address(nodes: Tunnelled, size: int) -> None:
    source, to = nodes.lab.layout.pods[0], nodes.vtep(nodes.two)
    with answering(nodes.two.netns, to) as (port, _):
        seen = ask(source.netns, to, port, size=size)

    assert seen == nodes.address(0, nodes.underlay)


@both_families
def test_the_world_sees_the_node(nodes: Tunnelled, family: int) -> None:
    world = next(str(one) for one in WORLD if one.version == family)
    with answering(nodes.lab.layout.underlay_netns, world) as (port, _):
        seen = ask(nodes.lab.layout.pods[0].netns, world, port)

    assert seen == next(str(one.ip) for one in nodes.one.underlay if one.version == family)


def test_a_host_port_leads_to_a_pod_from_both_nodes_and_the_world(nodes: Tunnelled) -> None:
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


# The wire


@both_families
def test_on_the_wire_there_is_one_ip_header_in_front(nodes: Tunnelled, family: int) -> None:
    """Byte by byte: a pod's datagram, as the other node's interface receives it."""
    source = nodes.lab.layout.pods[0]
    with running(nodes.two.netns, "capture", NODE_UPLINK) as receiver:
        assert receiver.heard() == "ready"
        send_datagrams(source.netns, nodes.address(2, family), 7, [b"on the wire"])
        receiver.tell()
        frames = [bytes.fromhex(one) for one in receiver.heard()]

    (frame,) = (one for one in frames if b"on the wire" in one)
    outer = frame[14:]
    inner = outer[{4: 20, 6: 40}[nodes.underlay] :]
    plain: dict[str, Any] = {"ttl": 64, "flags": "DF", "id": 0}
    if nodes.underlay == 6:
        plain = {"hlim": 64}
    ends = nodes.vtep(nodes.one), nodes.vtep(nodes.two)
    assert outer == bytes(nodes.outer(*ends, family, **plain) / Raw(inner))
    seen = (IP if family == 4 else IPv6)(inner)
    assert (seen.src, seen.dst) == (nodes.address(0, family), nodes.address(2, family))
    assert seen[UDP].dport == 7


# What is said


def test_the_way_is_said(nodes: Tunnelled) -> None:
    modes = {row["name"]: row["mode"] for row in nodes.lab.pycni(nodes.one, "nodes")}
    assert modes == {"node1": None, "node2": "ipip", "node3": "ipip"}
    found = json.loads(pycni(nodes.one, "status", "-o", "json").stdout)
    by_name = {row["name"]: row for row in found}

    assert by_name["encap"]["cause"] == "ipip: 2 of 2 nodes in IPIP"
    assert by_name["encap"]["state"] == "ok"
    assert by_name["doors"]["state"] == "ok"


def test_nodes_that_ask_each_other_get_answers(nodes: Tunnelled) -> None:
    nodes.wait_for_answers()


# Attacks


def ping(source: str, target: str) -> Packet:
    if ":" in source:
        return IPv6(src=source, dst=target) / ICMPv6EchoRequest()
    return IP(src=source, dst=target) / ICMP()


@both_families
def test_who_is_not_the_node_of_the_source_is_refused(nodes: Tunnelled, family: int) -> None:
    one, two, three = map(nodes.vtep, nodes.lab.layout.nodes)
    attacks = (
        (STRANGER[nodes.underlay], nodes.address(2, family), "UNKNOWN_VTEP"),
        (one, nodes.address(2, family), "UNKNOWN_VTEP"),
        (two, nodes.address(4, family), "SPOOFED_INNER"),
        (three, nodes.address(2, family), "SPOOFED_INNER"),
        (two, nodes.address(1, family), "SPOOFED_INNER"),
        (two, NOBODY[family], "SPOOFED_INNER"),
        (two, ELSEWHERE[family], "SPOOFED_INNER"),
    )
    before, expected = nodes.dropped_by("from_underlay"), Counter[str]()

    for number, (outer, inner, reason) in enumerate(attacks):
        packet = nodes.outer(outer, one, family) / ping(inner, nodes.address(0, family))
        send_by_stranger(nodes.lab, nodes.one, [packet] * 2**number)
        expected[reason] += 2**number

    wait_until(
        lambda: nodes.dropped_by("from_underlay") - before == expected,
        "all of them are counted as refused",
    )


@both_families
def test_the_node_of_the_source_is_heard(nodes: Tunnelled, family: int) -> None:
    """By the same means as the attacks, which would be heard, too."""
    inside = ping(nodes.address(2, family), nodes.address(0, family)) / Raw(b"as it should be")
    ends = nodes.vtep(nodes.two), nodes.vtep(nodes.one)
    with running(nodes.lab.layout.pods[0].netns, "capture", POD_IFNAME) as receiver:
        assert receiver.heard() == "ready"
        send_by_stranger(nodes.lab, nodes.one, [nodes.outer(*ends, family) / inside])
        receiver.tell()
        heard: list[str] = receiver.heard()

    assert any(b"as it should be".hex() in one for one in heard)


@both_families
@pytest.mark.parametrize(
    ("to", "counter"),
    [(1, overlay_guard.IPIP_OF_PROCESS), (0, overlay_guard.IPIP_NOT_TAKEN)],
    ids=["to another node", "to the node itself"],
)
def test_a_process_of_a_node_cannot_send_it(
    nodes: Tunnelled, family: int, to: int, counter: str
) -> None:
    inside = bytes(ping(nodes.address(2, family), nodes.address(1, family)))
    target = nodes.vtep(nodes.lab.layout.nodes[to])
    before = nodes.dropped_by("nft")[counter.upper()]

    within(nodes.one.netns, partial(send_raw, nodes.underlay, family, target, inside))

    assert nodes.dropped_by("nft")[counter.upper()] == before + 1


def send_raw(underlay: int, family: int, to: str, inside: bytes) -> None:
    """By a raw socket of the calling thread's namespace."""
    kind = socket.AF_INET if underlay == 4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_RAW, PROTOCOL[family]) as sender:
        try:
            sender.sendto(inside, (to, 0))
        except PermissionError:
            return


@both_families
def test_a_pod_cannot_send_it_to_a_node_or_the_world(nodes: Tunnelled, family: int) -> None:
    inside = ping(nodes.address(4, family), nodes.address(2, family))
    own, netns = nodes.address(0, nodes.underlay), nodes.lab.layout.pods[0].netns
    targets = [nodes.vtep(nodes.two), nodes.vtep(nodes.one), ELSEWHERE[nodes.underlay]]
    head = Ether(src=mac(netns, POD_IFNAME), dst=GATEWAY_MAC)
    before = nodes.dropped_by("from_container")["FORGED_IPIP"]

    frames = [bytes(head / nodes.outer(own, to, family) / inside) for to in targets]
    send_frames(netns, POD_IFNAME, frames)

    wait_until(
        lambda: nodes.dropped_by("from_container")["FORGED_IPIP"] == before + len(targets),
        "each of them is counted",
    )


# Without an agent, without a neighbour


def flooded(nodes: Tunnelled, target: int, count: int) -> None:
    """Packets from the moment on at which the kernels have forgotten their neighbours."""
    to = nodes.lab.addresses(nodes.lab.layout.pods[target])
    before = nodes.forwarded(nodes.one)
    for node in (nodes.one, nodes.two):
        ip(node.netns, "neigh", "flush", "dev", NODE_UPLINK)
    with Flood(nodes.lab.layout.pods[0], to, count=count) as flood:
        lost = flood.lost()

    assert set(lost.values()) == {0}
    after = nodes.forwarded(nodes.one) - before
    assert after["from_container NODE"] >= 2 * count, after
    assert after["from_container DEVICE"] == 0, after


@pytest.mark.parametrize("target", [2, 4], ids=["other node", "behind a router"])
def test_a_neighbour_that_the_kernel_has_forgotten_costs_no_packet(
    nodes: Tunnelled, target: int
) -> None:
    flooded(nodes, target, 200)


def test_without_agents_the_kernel_finds_the_way(nodes: Tunnelled) -> None:
    """The lease of the next hops ends, and the kernel forgets the neighbours."""
    with nodes.without_agents(*nodes.lab.layout.nodes):
        for target in (2, 4):
            flooded(nodes, target, 500)
