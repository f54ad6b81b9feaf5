# SPDX-License-Identifier: Apache-2.0
"""All programs: packets that end before their headers say so, at every length there is."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from bpf.dataplane import Dataplane
from bpf.outcomes import dropped, left_to_others
from bpf.world import GATEWAY_MAC, IPV4, IPV6, PAYLOAD, POD_ONE_MAC, VXLAN_PORT, Family

pytestmark = pytest.mark.root

SHORTEST = 14  # an Ethernet header; no device hands on less
FROM_POD_ONE = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)

SENT = {
    "IPv4": IPV4.from_pod_one(IPV4.pod_two),
    "IPv4 to another node": IPV4.from_pod_one(IPV4.pod_far),
    "IPv4 with options": FROM_POD_ONE
    / IP(src=IPV4.pod_one, dst=IPV4.pod_two, options=[IPOption_Timestamp()])
    / PAYLOAD,
    "IPv6": IPV6.from_pod_one(IPV6.pod_two),
    "IPv6 to another node": IPV6.from_pod_one(IPV6.pod_far),
    "ARP": FROM_POD_ONE / ARP(hwsrc=POD_ONE_MAC, psrc=IPV4.pod_one, pdst=IPV4.gateway),
    "ND": FROM_POD_ONE
    / IPv6(src=IPV6.pod_one, dst=IPV6.gateway, hlim=255)
    / ICMPv6ND_NS(tgt=IPV6.gateway)
    / ICMPv6NDOptSrcLLAddr(lladdr=POD_ONE_MAC),
}


@pytest.mark.parametrize("packet", SENT.values(), ids=SENT)
def test_a_pods_packet_is_dropped_at_every_length(dataplane: Dataplane, packet: Packet) -> None:
    for length in range(SHORTEST, len(packet)):
        cut = bytes(packet)[:length]

        outcome = dataplane.run("from_container", cut)

        assert outcome == dropped("TRUNCATED", cut), f"{length} bytes: {outcome}"


@pytest.mark.parametrize("program", ["to_container", "from_overlay", "to_overlay"])
def test_a_packet_for_a_pod_is_dropped_at_every_length(
    dataplane: Dataplane, family: Family, program: str
) -> None:
    if program == "from_overlay":
        dataplane.arrive_from(IPV4.node_two)
    packet = Ether(src=GATEWAY_MAC, dst=GATEWAY_MAC) / family.ip(family.pod_far, family.pod_one)
    packet /= PAYLOAD
    for length in range(SHORTEST, len(packet)):
        cut = bytes(packet)[:length]

        outcome = dataplane.run(program, cut)

        assert outcome == dropped("TRUNCATED", cut), f"{length} bytes: {outcome}"


def test_the_uplink_leaves_broken_packets_to_others(dataplane: Dataplane) -> None:
    outside = IP(src=IPV4.stranger, dst=IPV4.node_one) / UDP(dport=VXLAN_PORT)
    packet = FROM_POD_ONE / outside / VXLAN() / IPV4.from_pod_one(IPV4.pod_two)
    for length in range(SHORTEST, len(packet)):
        cut = bytes(packet)[:length]

        outcome = dataplane.run("from_underlay", cut)

        assert outcome == left_to_others(cut), f"{length} bytes: {outcome}"
