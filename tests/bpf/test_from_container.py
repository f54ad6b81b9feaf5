# SPDX-License-Identifier: Apache-2.0
"""from_container: what a pod sends, and where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Timestamp, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.dataplane import Dataplane
from bpf.outcomes import (
    Action,
    dropped,
    into_pod,
    left_to_others,
    out_of_veth,
    to_node,
    to_stack,
    with_macs,
)
from bpf.world import (
    BROADCAST_MAC,
    EMPTY,
    FOREIGN_MAC,
    GATEWAY_MAC,
    GROUP_MAC,
    IPV4,
    MASQUERADE_MARK,
    OVERLAY_MAC,
    OVERLAY_MTU,
    PAYLOAD,
    POD_ONE_MAC,
    POD_TWO_MAC,
    VETH_ONE,
    VETH_TWO,
    Endpoint,
    Family,
    Tables,
    cluster,
    second_addresses,
)

pytestmark = pytest.mark.root

FROM_POD_ONE = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
MARK_OF_OTHERS = 0x7
TCP_HEADER, UDP_HEADER = 20, 8
LLDP = 0x88CC
ICMPV6, ND_SOLICITATION = 58, 135
EXPERIMENT = 253  # protocol number for experiments, RFC 3692


def delivered(packet: Packet) -> Packet:
    return with_macs(packet, src=GATEWAY_MAC, dst=POD_TWO_MAC)


def encapsulated(packet: Packet) -> Packet:
    return with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)


def sized(family: Family, dst: str, length: int) -> Packet:
    """A packet of pod one with `length` bytes from the IP header on."""
    protocol = {"proto": EXPERIMENT} if family is IPV4 else {"nh": EXPERIMENT}
    packet = FROM_POD_ONE / family.ip(family.pod_one, dst, **protocol)
    return packet / Raw(bytes(length + len(FROM_POD_ONE) - len(packet)))


def destinations(family: Family, underlay: Family) -> Iterator[Case]:
    def send(dst: str) -> Packet:
        return family.from_pod_one(dst)

    packet = send(family.pod_two)
    yield Case("pod of this node", packet, into_pod(VETH_TWO, delivered(packet)))
    packet = send(family.pod_one)
    back = with_macs(packet, src=GATEWAY_MAC, dst=POD_ONE_MAC)
    yield Case("itself", packet, into_pod(VETH_ONE, back))
    packet = send(family.pod_far)
    yield Case("pod of node two", packet, to_node(underlay.node_two, encapsulated(packet)))
    packet = send(family.pod_third)
    yield Case("pod of node three", packet, to_node(underlay.node_three, encapsulated(packet)))
    packet = send(family.far_gateway)
    yield Case("gateway of node two", packet, to_node(underlay.node_two, encapsulated(packet)))
    packet = send(family.gateway)
    yield Case("own gateway", packet, to_stack(packet))
    packet = send(family.nobody)
    yield Case("cluster address of nobody", packet, dropped("UNKNOWN_DESTINATION", packet))
    packet = send(family.loopback)
    yield Case("loopback address", packet, dropped("UNKNOWN_DESTINATION", packet))
    packet = send(family.world)
    yield Case("the world", packet, to_stack(packet))
    packet = send(family.node_one)
    yield Case("own node", packet, to_stack(packet))
    packet = send(family.node_two)
    known = family is underlay
    there = to_node(underlay.node_two, encapsulated(packet)) if known else to_stack(packet)
    yield Case("node two itself", packet, there)
    several = second_addresses(underlay)
    own, second, _ = family.seconds
    packet = send(second)
    there = to_node(underlay.node_two, encapsulated(packet))
    yield Case("node two at another address", packet, there, several)
    yield Case("an address that is no node's any more", packet, to_stack(packet))
    packet = send(own)
    yield Case("own node at another address", packet, to_stack(packet), several)
    published = Tables(
        cluster(underlay).endpoints,
        {**cluster(underlay).remotes, f"{family.nobody}/{family.bits}": underlay.node_three},
        cluster(underlay).vteps,
    )
    packet = send(family.nobody)
    there = to_node(underlay.node_three, encapsulated(packet))
    yield Case("an address that node three published", packet, there, published)
    packet = send(family.world)
    there = to_node(underlay.node_three, encapsulated(packet))
    abroad = replace(published, remotes={f"{family.world}/{family.bits}": underlay.node_three})
    yield Case("a published address outside of the cluster", packet, there, abroad)
    beside = send(str(ip_address(family.nobody) + 1))
    there = dropped("UNKNOWN_DESTINATION", beside)
    yield Case("the address beside one that is published", beside, there, published)
    first = ip_network(f"{family.nobody}/{ip_network(family.far_cidr).prefixlen}", strict=False)
    published = Tables(
        cluster(underlay).endpoints,
        {f"{first.network_address}/{family.bits}": underlay.node_three},
        cluster(underlay).vteps,
    )
    packet = send(family.nobody)
    there = dropped("UNKNOWN_DESTINATION", packet)
    yield Case("a published address that could be a prefix's first", packet, there, published)


def to_shaped_pods(family: Family, underlay: Family) -> Iterator[Case]:
    shaped = cluster(underlay, shaped=True)
    packet = family.from_pod_one(family.pod_two)
    yield Case("pod of this node", packet, out_of_veth(VETH_TWO, packet), shaped)
    packet = family.from_pod_one(family.pod_far)
    there = to_node(underlay.node_two, encapsulated(packet))
    yield Case("pod of node two", packet, there, shaped)
    packet = family.from_pod_one(family.world)
    yield Case("the world", packet, to_stack(packet), shaped)


def of_queued_pods(family: Family, underlay: Family) -> Iterator[Case]:
    queued = cluster(underlay, queued=True, masquerade=True)

    def send(dst: str, **changes: str) -> Packet:
        return family.from_pod_one(dst, **changes)

    for name, dst in (
        ("pod of this node", family.pod_two),
        ("pod of node two", family.pod_far),
        ("gateway of node two", family.far_gateway),
        ("own gateway", family.gateway),
    ):
        yield Case(name, send(dst), left_to_others(send(dst), "QDISC"), queued)
    packet = send(family.world)
    yield Case("the world", packet, left_to_others(packet, "QDISC", mark=MASQUERADE_MARK), queued)
    packet = send(family.node_two)
    hidden = left_to_others(packet, "QDISC", mark=MASQUERADE_MARK)
    yield Case("node two itself", packet, hidden, queued)
    unmasked = cluster(underlay, queued=True)
    seen = hidden if family is underlay else left_to_others(packet, "QDISC")
    yield Case("node two itself, by the underlay", packet, seen, unmasked)
    packet = send(family.world)
    yield Case("the world, unmasked", packet, left_to_others(packet, "QDISC"), unmasked)
    packet = sized(family, family.pod_far, OVERLAY_MTU + 1)
    yield Case("too big for the overlay", packet, left_to_others(packet, "QDISC"), queued)
    packet = send(family.nobody)
    yield Case("nobody", packet, dropped("UNKNOWN_DESTINATION", packet), queued)
    packet = send(family.loopback)
    yield Case("loopback", packet, dropped("UNKNOWN_DESTINATION", packet), queued)
    packet = send(family.pod_two, src=family.gateway)
    yield Case("source of the gateway", packet, dropped("SPOOFED_SOURCE", packet), queued)
    packet = send(family.pod_two, eth_src=FOREIGN_MAC)
    yield Case("MAC of nobody", packet, dropped("SPOOFED_MAC", packet), queued)


def refused(family: Family, _underlay: Family) -> Iterator[Case]:
    packet = family.from_pod_one(family.pod_two)
    yield Case("nobody is known", packet, dropped("SPOOFED_SOURCE", packet), EMPTY)
    packet = family.from_pod_one(family.pod_far, src=family.pod_two, eth_src=POD_TWO_MAC)
    yield Case("source of another pod", packet, dropped("SPOOFED_SOURCE", packet))
    packet = family.from_pod_one(family.world, src=family.world)
    yield Case("source of nobody", packet, dropped("SPOOFED_SOURCE", packet))
    packet = family.from_pod_one(family.pod_two, src=family.gateway)
    yield Case("source of the gateway", packet, dropped("SPOOFED_SOURCE", packet))
    packet = family.from_pod_one(family.pod_two, eth_src=FOREIGN_MAC)
    yield Case("MAC of nobody", packet, dropped("SPOOFED_MAC", packet))
    packet = family.from_pod_one(family.pod_far, eth_src=POD_TWO_MAC)
    yield Case("MAC of another pod", packet, dropped("SPOOFED_MAC", packet))
    packet = family.from_pod_one(family.group, eth_dst=GROUP_MAC)
    yield Case("multicast", packet, dropped("MULTICAST", packet))
    packet = family.from_pod_one(family.pod_two, eth_dst=BROADCAST_MAC)
    yield Case("unicast in a broadcast frame", packet, dropped("MULTICAST", packet))
    packet = FROM_POD_ONE / Dot1Q(vlan=5) / family.from_pod_one(family.pod_two).payload
    yield Case("VLAN tag", packet, dropped("UNKNOWN_L3", packet))
    packet = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC, type=LLDP) / Raw(bytes(46))
    yield Case("no IP", packet, dropped("UNKNOWN_L3", packet))
    good = bytes(family.from_pod_one(family.pod_two))
    wrong = good[:14] + bytes([good[14] ^ 0x30]) + good[15:]
    yield Case("version of no IP", wrong, dropped("BAD_HEADER", wrong))


def only_ipv4(family: Family, underlay: Family) -> Iterator[Case]:
    if family is not IPV4:
        return
    broadcast = family.from_pod_one("255.255.255.255", src="0.0.0.0", eth_dst=BROADCAST_MAC)
    yield Case("DHCP", broadcast, dropped("MULTICAST", broadcast))

    def to_pod_two(**fields: Any) -> Packet:
        return FROM_POD_ONE / IP(src=family.pod_one, dst=family.pod_two, **fields) / PAYLOAD

    packet = to_pod_two(ihl=4)
    yield Case("header length below 20", packet, dropped("BAD_HEADER", packet))
    packet = to_pod_two(len=19)
    yield Case("total length below the header", packet, dropped("BAD_HEADER", packet))
    packet = to_pod_two(options=[IPOption_Timestamp()])
    yield Case("options", packet, into_pod(VETH_TWO, delivered(packet)))
    packet = (
        FROM_POD_ONE
        / IP(src=family.pod_one, dst=family.pod_two, proto=ICMPV6)
        / Raw(bytes([ND_SOLICITATION, *bytes(31)]))
    )
    yield Case("ICMPv6 in IPv4 asks nothing", packet, into_pod(VETH_TWO, delivered(packet)))
    whole = FROM_POD_ONE / IP(src=family.pod_one, dst=family.pod_far) / Raw(bytes(100))
    for number, part in enumerate(fragment(whole, fragsize=48)):
        there = to_node(underlay.node_two, encapsulated(part))
        yield Case(f"fragment {number}", part, there)


def only_ipv6(family: Family, underlay: Family) -> Iterator[Case]:
    if family is IPV4:
        return
    ip6 = IPv6(src=family.pod_one, dst=family.pod_far)
    for name, header in (
        ("destination options", IPv6ExtHdrDestOpt()),
        ("first fragment", IPv6ExtHdrFragment(m=1)),
        ("later fragment", IPv6ExtHdrFragment(offset=3)),
    ):
        packet = FROM_POD_ONE / ip6 / header / PAYLOAD
        yield Case(name, packet, to_node(underlay.node_two, encapsulated(packet)))
    mapped = f"::ffff:{IPV4.pod_two}"
    packet = FROM_POD_ONE / IPv6(src=family.pod_one, dst=mapped) / PAYLOAD
    yield Case("destination that passes for IPv4", packet, dropped("BAD_HEADER", packet))
    packet = FROM_POD_ONE / IPv6(src=f"::ffff:{IPV4.pod_one}", dst=family.pod_two) / PAYLOAD
    yield Case("source that passes for IPv4", packet, dropped("BAD_HEADER", packet))
    packet = FROM_POD_ONE / IPv6(src="fe80::1234", dst=family.pod_two) / PAYLOAD
    yield Case("link-local source", packet, dropped("LINK_LOCAL", packet))


def sizes(family: Family, underlay: Family) -> Iterator[Case]:
    fits = sized(family, family.pod_far, OVERLAY_MTU)
    yield Case("as big as the MTU", fits, to_node(underlay.node_two, encapsulated(fits)))
    big = sized(family, family.pod_far, OVERLAY_MTU + 1)
    yield Case("a byte above the MTU", big, to_stack(big))
    local = sized(family, family.pod_two, OVERLAY_MTU + 1)
    yield Case("any size on this node", local, into_pod(VETH_TWO, delivered(local)))
    padded = Ether(bytes(fits) + bytes(6))
    yield Case("padding is no size", padded, to_node(underlay.node_two, encapsulated(padded)))


def segments(family: Family, underlay: Family) -> Iterator[Case]:
    def bulk(*layers: Packet) -> Packet:
        packet = FROM_POD_ONE / family.ip(family.pod_one, family.pod_far)
        for layer in layers:
            packet /= layer
        return packet / Raw(bytes(3000))

    ip_header = 20 if family.bits == 32 else 40
    tcp = bulk(TCP())
    fits = OVERLAY_MTU - ip_header - TCP_HEADER
    there = to_node(underlay.node_two, encapsulated(tcp))
    yield Case("TCP segments that fit", tcp, there, gso_size=fits)
    yield Case("TCP segments too big", tcp, to_stack(tcp), gso_size=fits + 1)
    options = bulk(TCP(options=[("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]))
    there = to_node(underlay.node_two, encapsulated(options))
    yield Case("TCP options that fit", options, there, gso_size=fits - 12)
    yield Case("TCP options too big", options, to_stack(options), gso_size=fits - 11)
    udp = bulk(UDP(sport=40000, dport=443))
    fits = OVERLAY_MTU - ip_header - UDP_HEADER
    there = to_node(underlay.node_two, encapsulated(udp))
    yield Case("UDP segments that fit", udp, there, gso_size=fits)
    yield Case("UDP segments too big", udp, to_stack(udp), gso_size=fits + 1)
    if family.bits == 128:
        odd = bulk(IPv6ExtHdrDestOpt(), TCP())
        yield Case("segments behind an extension header", odd, to_stack(odd), gso_size=100)
    else:
        huge = bytearray(bytes(tcp))
        huge[16:18] = b"\0\0"
        there = to_node(underlay.node_two, encapsulated(Ether(bytes(huge))))
        yield Case("BIG TCP says no length", bytes(huge), there, gso_size=1000)


def marks(family: Family, underlay: Family) -> Iterator[Case]:
    masquerading = cluster(underlay, masquerade=True)
    packet = family.from_pod_one(family.world)
    there = to_stack(packet, mark=MASQUERADE_MARK)
    yield Case("what leaves the cluster is marked", packet, there, masquerading)
    there = to_stack(packet, mark=MASQUERADE_MARK | MARK_OF_OTHERS)
    yield Case("other bits stay", packet, there, masquerading, mark=MARK_OF_OTHERS)
    packet = family.from_pod_one(family.gateway)
    yield Case("the gateway sees the pod", packet, to_stack(packet), masquerading)
    big = sized(family, family.pod_far, OVERLAY_MTU + 1)
    yield Case("too big for the overlay is no exit", big, to_stack(big), masquerading)
    only_two = Tables(
        {
            family.pod_one: Endpoint(VETH_ONE, POD_ONE_MAC),
            family.pod_two: Endpoint(VETH_TWO, POD_TWO_MAC, masquerade=True),
        }
    )
    packet = family.from_pod_one(family.world)
    yield Case("another pod's flag", packet, to_stack(packet), only_two)


@in_all_families(destinations)
def test_a_packet_goes_where_its_destination_is(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(to_shaped_pods)
def test_shaped_pods_are_reached_through_their_host_veth(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(of_queued_pods)
def test_queued_pods_send_through_the_qdisc_of_others(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(refused)
def test_a_pod_may_not_send(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(only_ipv4)
def test_ipv4_headers_decide_nothing_unless_broken(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(only_ipv6)
def test_ipv6_headers_decide_nothing_unless_broken(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(sizes)
def test_what_does_not_fit_between_nodes_goes_to_the_stack(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(segments)
def test_each_segment_must_fit_between_nodes(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(marks)
def test_only_what_leaves_the_cluster_is_marked(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


def test_the_stack_gets_packets_under_its_own_mac(dataplane: Dataplane, family: Family) -> None:
    packet = family.from_pod_one(family.world, eth_dst=FOREIGN_MAC)

    outcome = dataplane.run("from_container", packet)

    assert outcome == to_stack(with_macs(packet, src=POD_ONE_MAC, dst=GATEWAY_MAC))


def test_a_vlan_tag_outside_of_the_bytes_is_seen(dataplane: Dataplane, family: Family) -> None:
    packet = bytes(family.from_pod_one(family.pod_two))
    before = dataplane.drops().get(("FROM_CONTAINER", "UNKNOWN_L3"), (0, 0))

    result = dataplane.test_run_tagged("from_container", packet)

    packets, _ = dataplane.drops()["FROM_CONTAINER", "UNKNOWN_L3"]
    assert result.action == Action.SHOT
    assert packets == before[0] + 1
