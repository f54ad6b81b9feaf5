# SPDX-License-Identifier: Apache-2.0
"""from_container with own encapsulation: which packets get outer headers, and every bit of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Timestamp, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from bpf import test_from_container
from bpf.cases import Case, Dataplanes, check, in_all_families, unvouched
from bpf.dataplane import Dataplane
from bpf.outcomes import Action, Outcome, out_of_uplink, to_node, to_stack, with_macs
from bpf.world import (
    FAMILIES,
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    OVERLAY_MTU,
    POD_ONE_MAC,
    ROUTER_MAC,
    UPLINK_MAC,
    VNI,
    VXLAN_PORT,
    Family,
    NextHop,
    Tables,
    cluster,
)

pytestmark = pytest.mark.root

FROM_POD_ONE = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
SOURCE_PORTS = range(49152, 65536)
NARROW = 1000
ECN_CODEPOINTS = {"Not-ECT": 0, "ECT(1)": 1, "ECT(0)": 2, "CE": 3}


def known(underlay: Family, **hop: Any) -> Tables:
    """The cluster, with next hops to both other nodes."""
    hops = {vtep: NextHop(**hop) for vtep in (underlay.node_two, underlay.node_three)}
    return replace(cluster(underlay), nexthops=hops)


def wrapped(underlay: Family, packet: Packet, *, to: str, ecn: int = 0, port: int = 0) -> Packet:
    """The frame on the wire, from RFC 7348 and what the kernel's device makes."""
    fields = {"ttl": 64, "flags": "DF", "id": 0, "tos": ecn} if underlay is IPV4 else {}
    fields |= {"hlim": 64, "tc": ecn} if underlay is not IPV4 else {}
    inside = with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    udp = UDP(sport=port, dport=VXLAN_PORT, chksum=0)
    outside = (
        underlay.ip(underlay.node_one, to, **fields)
        / udp
        / VXLAN(vni=VNI, flags="Instance")
        / inside
    )
    return Ether(bytes(Ether(src=UPLINK_MAC, dst=ROUTER_MAC) / outside))


def source_port(underlay: Family, frame: bytes) -> int:
    at = 14 + (20 if underlay is IPV4 else 40)
    return int.from_bytes(frame[at : at + 2], "big")


def send(dataplanes: Dataplanes, underlay: Family, packet: Packet) -> Outcome:
    dataplane = dataplanes[underlay.name]
    dataplane.fill(known(underlay))
    dataplane.arrive_from(None)
    return dataplane.run("from_container", packet)


def taken(family: Family, underlay: Family) -> Iterator[tuple[str, Packet, str, int]]:
    """(what, packet, node it is for, ECN of the outer header)"""
    two = underlay.node_two
    yield "to node two", family.from_pod_one(family.pod_far), two, 0
    yield "to node three", family.from_pod_one(family.pod_third), underlay.node_three, 0
    yield "to the gateway there", family.from_pod_one(family.far_gateway), two, 0
    if family is underlay:
        yield "to the node itself", family.from_pod_one(two), two, 0
    full = test_from_container.sized(family, family.pod_far, OVERLAY_MTU)
    yield "as big as fits", full, two, 0
    tcp = FROM_POD_ONE / family.ip(family.pod_one, family.pod_far) / TCP(dport=80)
    yield "TCP", tcp, two, 0
    for name, ecn in ECN_CODEPOINTS.items():
        field = {"tos": 0xB8 | ecn} if family is IPV4 else {"tc": 0xB8 | ecn}
        packet = FROM_POD_ONE / family.ip(family.pod_one, family.pod_far, **field) / UDP()
        yield f"{name}, and a DSCP that stays inside", packet, two, ecn
    if family is IPV4:
        options = IP(src=family.pod_one, dst=family.pod_far, options=[IPOption_Timestamp()])
        yield "options", FROM_POD_ONE / options / UDP(), two, 0
    else:
        ip6 = IPv6(src=family.pod_one, dst=family.pod_far)
        yield "a fragment", FROM_POD_ONE / ip6 / IPv6ExtHdrFragment(offset=3) / b"12345678", two, 0


TAKEN = [
    pytest.param(underlay, *row, id=f"{family.name} over {underlay.name}: {row[0]}")
    for underlay in FAMILIES
    for family in FAMILIES
    for row in taken(family, underlay)
]


@pytest.mark.parametrize(("underlay", "what", "packet", "node", "ecn"), TAKEN)
def test_a_packet_leaves_by_the_next_hop(
    own_dataplanes: Dataplanes, underlay: Family, what: str, packet: Packet, node: str, ecn: int
) -> None:
    outcome = send(own_dataplanes, underlay, packet)

    port = source_port(underlay, outcome.packet)
    assert port in SOURCE_PORTS
    assert outcome == out_of_uplink(wrapped(underlay, packet, to=node, ecn=ecn, port=port)), what


def left(family: Family, underlay: Family) -> Iterator[Case]:
    """To the metadata device, as if there were no own encapsulation."""
    packet = family.from_pod_one(family.pod_far)
    inside = with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    there = to_node(underlay.node_two, inside)
    yield Case("no next hop", packet, there)
    only_three = replace(cluster(underlay), nexthops={underlay.node_three: NextHop()})
    yield Case("a next hop to another node", packet, there, only_three)
    full = test_from_container.sized(family, family.pod_far, NARROW + 1)
    full_inside = with_macs(full, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    narrow = known(underlay, mtu=NARROW)
    yield Case("a narrower way", full, to_node(underlay.node_two, full_inside), narrow)
    padded = Ether(bytes(test_from_container.sized(family, family.pod_far, NARROW)) + bytes(1))
    padded_inside = with_macs(padded, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    yield Case("padding too wide", padded, to_node(underlay.node_two, padded_inside), narrow)
    # test_run's segments are of no protocol, and bpf_skb_adjust_room() takes only TCP's and UDP's
    bulk = FROM_POD_ONE / family.ip(family.pod_one, family.pod_far) / TCP() / Raw(bytes(3000))
    bulk_inside = with_macs(bulk, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    there = to_node(underlay.node_two, bulk_inside)
    yield Case("segments the helper refuses", bulk, there, known(underlay), gso_size=1000)
    big = test_from_container.sized(family, family.pod_far, OVERLAY_MTU + 1)
    yield Case("above the overlay's MTU", big, to_stack(big), known(underlay, mtu=9000))


@in_all_families(left)
def test_the_kernel_gets_what_has_no_way_of_its_own(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(own_dataplanes, "from_container", underlay, case)


EVERYTHING = [
    getattr(test_from_container, table)
    for table in (
        "destinations", "to_shaped_pods", "refused", "only_ipv4", "only_ipv6", "sizes", "segments",
        "marks",
    )
]  # fmt: skip


@in_all_families(
    lambda family, underlay: (c for rows in EVERYTHING for c in rows(family, underlay))
)
def test_nothing_else_changes_without_next_hops(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(own_dataplanes, "from_container", underlay, case)


def test_next_hops_count_only_while_somebody_vouches(own_dataplanes: Dataplanes) -> None:
    packet = IPV4.from_pod_one(IPV4.pod_far)

    with unvouched(own_dataplanes[IPV4.name]):
        outcome = send(own_dataplanes, IPV4, packet)

    inside = with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    assert outcome == to_node(IPV4.node_two, inside)


def test_switched_off_next_hops_do_not_count(dataplane: Dataplane) -> None:
    packet = IPV4.from_pod_one(IPV4.pod_far)
    dataplane.fill(known(IPV4))

    outcome = dataplane.run("from_container", packet)

    inside = with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    assert outcome == to_node(IPV4.node_two, inside)


def test_a_next_hop_in_use_is_marked(own_dataplanes: Dataplanes) -> None:
    dataplane = own_dataplanes[IPV4.name]
    dataplane.fill(Tables())

    outcome = send(own_dataplanes, IPV4, IPV4.from_pod_one(IPV4.pod_far))

    assert outcome.action == Action.REDIRECT
    used = {key[12:]: value[-2:] for key, value in dataplane.maps["nexthops"].items()}
    assert sorted(used.values()) == [bytes(2), b"\1\0"]


@pytest.mark.parametrize("underlay", FAMILIES, ids=lambda one: one.name)
def test_a_flow_keeps_its_source_port_and_flows_spread(
    own_dataplanes: Dataplanes, family: Family, underlay: Family
) -> None:
    def ports(**fields: Any) -> int:
        packet = FROM_POD_ONE / family.ip(family.pod_one, family.pod_far) / UDP(**fields)
        return source_port(underlay, send(own_dataplanes, underlay, packet).packet)

    same = {ports(sport=1000, dport=53) for _ in range(3)}
    spread = {ports(sport=sport, dport=53) for sport in range(1000, 1100)}

    assert len(same) == 1
    assert len(spread) > 90


def test_fragments_of_a_packet_keep_together(own_dataplanes: Dataplanes) -> None:
    whole = FROM_POD_ONE / IP(src=IPV4.pod_one, dst=IPV4.pod_far) / UDP() / Raw(bytes(100))

    seen = {
        source_port(IPV4, send(own_dataplanes, IPV4, part).packet)
        for part in fragment(whole, fragsize=48)
    }

    assert len(seen) == 1
