# SPDX-License-Identifier: Apache-2.0
"""from_container: a pod's questions for link-layer addresses."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from scapy.utils6 import in6_getnsma, in6_getnsmac

from bpf.dataplane import Dataplane
from bpf.outcomes import Action, answered, dropped
from bpf.world import BROADCAST_MAC, FOREIGN_MAC, GATEWAY_MAC, IPV4, IPV6, POD_ONE_MAC, VETH_ONE

pytestmark = pytest.mark.root

REQUEST, REPLY = 1, 2
NOBODY_MAC = "00:00:00:00:00:00"
LINK_LOCAL = "fe80::800:ff:fe00:1"


def arp_request(target: str, *, sender: str = IPV4.pod_one, eth_dst: str = BROADCAST_MAC) -> Packet:
    arp = ARP(op=REQUEST, hwsrc=POD_ONE_MAC, psrc=sender, hwdst=NOBODY_MAC, pdst=target)
    return Ether(src=POD_ONE_MAC, dst=eth_dst) / arp


def arp_reply(target: str, *, asker: str = IPV4.pod_one) -> Packet:
    arp = ARP(op=REPLY, hwsrc=GATEWAY_MAC, psrc=target, hwdst=POD_ONE_MAC, pdst=asker)
    return Ether(src=GATEWAY_MAC, dst=POD_ONE_MAC) / arp


def solicitation(target: str, *options: Packet, src: str = IPV6.pod_one, **fields: Any) -> Packet:
    group = in6_getnsma(socket.inet_pton(socket.AF_INET6, target))
    ip6 = IPv6(
        src=src,
        dst=socket.inet_ntop(socket.AF_INET6, group),
        hlim=fields.pop("hlim", 255),
        **fields,
    )
    packet = Ether(src=POD_ONE_MAC, dst=in6_getnsmac(group)) / ip6 / ICMPv6ND_NS(tgt=target)
    for option in options:
        packet /= option
    return packet


def advertisement(target: str, *, asker: str = IPV6.pod_one) -> Packet:
    ip6 = IPv6(src=target, dst=asker, hlim=255)
    answer = ICMPv6ND_NA(tgt=target, R=1, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=GATEWAY_MAC)
    return Ether(src=GATEWAY_MAC, dst=POD_ONE_MAC) / ip6 / answer


ANSWERED = {
    "ARP for the gateway": (arp_request(IPV4.gateway), arp_reply(IPV4.gateway)),
    "ARP for the gateway's MAC again": (
        arp_request(IPV4.gateway, eth_dst=GATEWAY_MAC),
        arp_reply(IPV4.gateway),
    ),
    "ARP for another pod": (arp_request(IPV4.pod_two), arp_reply(IPV4.pod_two)),
    "ARP for a pod elsewhere": (arp_request(IPV4.pod_far), arp_reply(IPV4.pod_far)),
    "ARP for the world": (arp_request(IPV4.world), arp_reply(IPV4.world)),
    "ARP without a sender, for another's address": (
        arp_request(IPV4.pod_two, sender="0.0.0.0"),
        arp_reply(IPV4.pod_two, asker="0.0.0.0"),
    ),
    "ARP with padding": (
        arp_request(IPV4.gateway) / Raw(bytes(18)),
        arp_reply(IPV4.gateway) / Raw(bytes(18)),
    ),
    "ND with a link-layer option": (
        solicitation(IPV6.gateway, ICMPv6NDOptSrcLLAddr(lladdr=POD_ONE_MAC)),
        advertisement(IPV6.gateway),
    ),
    "ND without an option": (solicitation(IPV6.gateway), advertisement(IPV6.gateway)),
    "ND with two options": (
        solicitation(
            IPV6.gateway,
            ICMPv6NDOptUnknown(type=14, len=1, data=b"nonce!"),
            ICMPv6NDOptSrcLLAddr(lladdr=POD_ONE_MAC),
        ),
        advertisement(IPV6.gateway),
    ),
    "ND with the option of a liar": (
        solicitation(IPV6.gateway, ICMPv6NDOptSrcLLAddr(lladdr=FOREIGN_MAC)),
        advertisement(IPV6.gateway),
    ),
    "ND of a link-local address": (
        solicitation(IPV6.gateway, src=LINK_LOCAL),
        advertisement(IPV6.gateway, asker=LINK_LOCAL),
    ),
    "ND for another pod": (solicitation(IPV6.pod_two), advertisement(IPV6.pod_two)),
    "ND for the world": (solicitation(IPV6.world), advertisement(IPV6.world)),
    "ND to the gateway itself": (
        Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
        / IPv6(src=IPV6.pod_one, dst=IPV6.gateway, hlim=255)
        / ICMPv6ND_NS(tgt=IPV6.gateway),
        advertisement(IPV6.gateway),
    ),
}

UNANSWERED = {
    "ARP probe for its own address": (
        arp_request(IPV4.pod_one, sender="0.0.0.0"),
        "UNANSWERED_PROBE",
    ),
    "ARP announcement of its own address": (arp_request(IPV4.pod_one), "UNANSWERED_PROBE"),
    "ARP announcement of another's address": (
        arp_request(IPV4.pod_two, sender=IPV4.pod_two),
        "UNANSWERED_PROBE",
    ),
    "ARP reply that nobody asked for": (
        Ether(src=POD_ONE_MAC, dst=BROADCAST_MAC)
        / ARP(op=REPLY, hwsrc=POD_ONE_MAC, psrc=IPV4.gateway, hwdst=NOBODY_MAC, pdst=IPV4.gateway),
        "UNANSWERED_PROBE",
    ),
    "ARP for another protocol": (
        Ether(src=POD_ONE_MAC, dst=BROADCAST_MAC) / ARP(ptype=0x86DD, pdst=IPV4.gateway),
        "BAD_HEADER",
    ),
    "ARP with long addresses": (
        Ether(src=POD_ONE_MAC, dst=BROADCAST_MAC) / ARP(hwlen=8, hwdst=bytes(8), hwsrc=bytes(8)),
        "BAD_HEADER",
    ),
    "ND probe for its own address": (solicitation(IPV6.pod_one, src="::"), "UNANSWERED_PROBE"),
    "ND probe for a link-local address": (solicitation(LINK_LOCAL, src="::"), "UNANSWERED_PROBE"),
    "ND for its own address": (solicitation(IPV6.pod_one), "UNANSWERED_PROBE"),
    "ND that passed a router": (solicitation(IPV6.gateway, hlim=254), "BAD_HEADER"),
    "ND of an unknown code": (
        Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
        / IPv6(src=IPV6.pod_one, dst=IPV6.gateway, hlim=255)
        / ICMPv6ND_NS(tgt=IPV6.gateway, code=1),
        "BAD_HEADER",
    ),
    "ND for a group": (solicitation(IPV6.group), "BAD_HEADER"),
    "ND for an address that passes for IPv4": (
        solicitation(f"::ffff:{IPV4.gateway}"),
        "BAD_HEADER",
    ),
    "ND without a target": (solicitation(IPV6.gateway, plen=8), "BAD_HEADER"),
    "router solicitation": (
        Ether(src=POD_ONE_MAC, dst="33:33:00:00:00:02")
        / IPv6(src=LINK_LOCAL, dst="ff02::2", hlim=255)
        / ICMPv6ND_RS(),
        "MULTICAST",
    ),
}


@pytest.mark.parametrize(("question", "answer"), ANSWERED.values(), ids=ANSWERED)
def test_the_gateways_mac_is_the_answer(
    dataplane: Dataplane, question: Packet, answer: Packet
) -> None:
    outcome = dataplane.run("from_container", question)

    assert outcome == answered(VETH_ONE, answer), f"{outcome}\nwant {answer.command()}"


@pytest.mark.parametrize(("question", "reason"), UNANSWERED.values(), ids=UNANSWERED)
def test_no_answer_is_due(dataplane: Dataplane, question: Packet, reason: str) -> None:
    outcome = dataplane.run("from_container", question)

    assert outcome == dropped(reason, question)


def test_a_question_with_a_vlan_tag_is_not_for_us(dataplane: Dataplane) -> None:
    for question in (arp_request(IPV4.gateway), solicitation(IPV6.gateway)):
        padded = bytes(question).ljust(60, b"\0")

        result = dataplane.test_run_tagged("from_container", padded)

        assert result.action == Action.SHOT
        assert result.packet == padded
