# SPDX-License-Identifier: Apache-2.0
"""VXLAN that a pod makes by itself reaches pods, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from bpf import wrapping
from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.outcomes import dropped, into_pod, left_to_others, passed, to_stack
from bpf.test_from_container import delivered
from bpf.test_from_overlay import inner
from bpf.world import (
    GATEWAY_MAC,
    IPV4,
    LINK_LOCAL_SERVICE,
    MASQUERADE_MARK,
    OVERLAY_MAC,
    POD_ONE_MAC,
    VETH_TWO,
    VNI,
    VXLAN_PORT,
    Family,
    Tables,
    cluster,
    second_addresses,
)
from bpf.wrapping import chained, fragment

pytestmark = pytest.mark.root

FROM_POD_ONE: Packet = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
ICMP4, IP4_UDP = 1, 17


def vxlan(family: Family, dst: str, *, port: int = VXLAN_PORT, **fields: Any) -> Packet:
    """What pod one makes to speak as pod two to a far pod."""
    inside = Ether() / family.ip(family.pod_two, family.pod_far) / UDP() / Raw(b"forged")
    outside = FROM_POD_ONE / family.ip(family.pod_one, dst, **fields)
    return outside / UDP(sport=4789, dport=port) / VXLAN(vni=VNI) / inside


def strangers(family: Family) -> Iterator[tuple[str, str]]:
    """Who is no pod."""
    yield "own VTEP", family.node_one
    yield "VTEP of node two", family.node_two
    yield "own gateway", family.gateway
    yield "the world", family.world
    if family is IPV4:
        yield "a service of the node", LINK_LOCAL_SERVICE


def kinds(underlay: Family) -> Iterator[tuple[str, Tables]]:
    """The flags of the pods."""
    yield "plain", cluster(underlay)
    yield "masqueraded", cluster(underlay, masquerade=True)
    yield "shaped", cluster(underlay, shaped=True)
    yield "queued", cluster(underlay, queued=True)
    yield "queued and masqueraded", cluster(underlay, queued=True, masquerade=True)


def forged(family: Family, underlay: Family) -> Iterator[Case]:
    for whom, dst in strangers(family):
        for kind, tables in kinds(underlay):
            packet = vxlan(family, dst)
            yield Case(f"{kind}, to {whom}", packet, dropped("FORGED_VXLAN", packet), tables)
    if family is IPV4:
        shapes: dict[str, dict[str, Any]] = {
            "with options": {"options": [IPOption_Timestamp()]},
            "a first fragment": {"flags": "MF"},
            "a first fragment, DF and all": {"flags": "MF+DF"},
        }
        for name, fields in shapes.items():
            packet = vxlan(family, family.world, **fields)
            yield Case(name, packet, dropped("FORGED_VXLAN", packet))
    else:
        udp = bytes(vxlan(family, family.world))[54:]
        for name, headers in wrapping.CHAINS.items():
            packet = chained(family.pod_one, family.world, headers, wrapping.UDP, udp)
            yield Case(name, packet, dropped("FORGED_VXLAN", packet))


def too_big(family: Family, dst: str = "", **fields: Any) -> Packet:
    """What only a router between two nodes may say: a packet to the second does not fit."""
    outer = family.ip(family.node_one, dst or family.node_two, **fields)
    return error(family) / outer / UDP(sport=40000, dport=VXLAN_PORT) / VXLAN(vni=VNI)


def error(family: Family) -> Packet:
    """An error about a packet that follows."""
    return ICMP(type=3, code=4, nexthopmtu=600) if family is IPV4 else ICMPv6PacketTooBig(mtu=1280)


def from_pod_one(family: Family, dst: str, message: Packet) -> Packet:
    return FROM_POD_ONE / family.ip(family.pod_one, dst) / message


def made_up(family: Family, underlay: Family) -> Iterator[Case]:
    """Errors about paths between nodes: who believes them sends less to the other node."""
    several = second_addresses(underlay)
    packet = from_pod_one(family, family.node_one, too_big(family, family.seconds[1]))
    yield Case("about a second address", packet, dropped("FORGED_ERROR", packet), several)
    if family is not underlay:
        return
    for whom, dst in strangers(family):
        packet = from_pod_one(family, dst, too_big(family))
        for kind, tables in kinds(underlay):
            yield Case(f"{kind}, to {whom}", packet, dropped("FORGED_ERROR", packet), tables)
    echo = ICMP(type=0) if family is IPV4 else ICMPv6EchoReply()
    about_echo = error(family) / family.ip(family.node_one, family.node_two) / echo
    packet = from_pod_one(family, family.node_one, about_echo)
    yield Case("about an echo reply", packet, dropped("FORGED_ERROR", packet))
    if family is IPV4:
        packet = from_pod_one(family, family.world, too_big(family, options=[IPOption_Timestamp()]))
        yield Case("about one with options", packet, dropped("FORGED_ERROR", packet))
    else:
        for name, headers in wrapping.CHAINS.items():
            upper = bytes(from_pod_one(family, family.world, too_big(family)))[54:]
            packet = chained(family.pod_one, family.world, headers, wrapping.ICMPV6, upper)
            yield Case(name, packet, dropped("FORGED_ERROR", packet))
    length = 20 if family is IPV4 else 40
    whole = bytes(from_pod_one(family, family.world, too_big(family)))[14 + length :]
    proto = {"proto": ICMP4} if family is IPV4 else {"nh": wrapping.ICMPV6}
    for cut in (4, 8, 8 + length - 1):
        short = family.ip(family.pod_one, family.world, **proto) / Raw(whole[:cut])
        packet = FROM_POD_ONE / short
        yield Case(f"{cut} bytes of it", packet, dropped("HIDDEN_HEADER", packet))


def unreadable(family: Family, underlay: Family) -> Iterator[Case]:
    if family is IPV4:
        for length in (0, 1, 3):
            tiny = IP(src=family.pod_one, dst=family.world, flags="MF", proto=IP4_UDP)
            packet = FROM_POD_ONE / tiny / Raw(bytes(vxlan(family, family.world))[34 : 34 + length])
            yield Case(f"{length} bytes of UDP", packet, dropped("HIDDEN_HEADER", packet))
        return
    udp = bytes(vxlan(family, family.world))[54:]
    rows = wrapping.unreadable(family.pod_one, family.world, wrapping.UDP, udp)
    for name, packet in rows:
        for kind, tables in kinds(underlay):
            yield Case(f"{kind}: {name}", packet, dropped("HIDDEN_HEADER", packet), tables)


def innocent(family: Family, underlay: Family) -> Iterator[Case]:
    packet = vxlan(family, family.pod_two)
    yield Case("to a pod", packet, into_pod(VETH_TWO, delivered(packet)))
    packet = vxlan(family, family.world, port=VXLAN_PORT + 1)
    yield Case("to another port", packet, to_stack(packet))
    packet = FROM_POD_ONE / family.ip(family.pod_one, family.world) / TCP(dport=VXLAN_PORT)
    yield Case("TCP to the port", packet, to_stack(packet))
    for name, dst in (("the pod", family.pod_one), ("the world", family.world)):
        packet = from_pod_one(family, family.node_one, too_big(family, dst))
        yield Case(f"an error about a packet to {name}", packet, to_stack(packet))
    packet = from_pod_one(family, family.pod_two, too_big(family))
    yield Case("an error to a pod", packet, into_pod(VETH_TWO, delivered(packet)))
    echo = ICMP() if family is IPV4 else ICMPv6EchoRequest()
    packet = from_pod_one(family, family.world, echo)
    yield Case("an echo request without data", packet, to_stack(packet))
    queued = cluster(underlay, queued=True, masquerade=True)
    packet = vxlan(family, family.world, port=53)
    there = left_to_others(packet, "QDISC", mark=MASQUERADE_MARK)
    yield Case("to another port, queued", packet, there, queued)
    if family is IPV4:
        packet = vxlan(family, family.world, frag=3)
        yield Case("a later fragment", packet, to_stack(packet))
        return
    udp = bytes(vxlan(family, family.world))[54:]
    later = chained(family.pod_one, family.world, (fragment(offset=3),), wrapping.UDP, udp)
    yield Case("a later fragment", later, to_stack(later))
    nothing = chained(family.pod_one, family.world, (), wrapping.NO_NEXT, b"")
    yield Case("no upper layer", nothing, to_stack(nothing))
    other = bytes(vxlan(family, family.world, port=53))[54:]
    for name, headers in wrapping.CHAINS.items():
        packet = chained(family.pod_one, family.world, headers, wrapping.UDP, other)
        yield Case(f"to another port, {name}", packet, to_stack(packet))


def nested(family: Family, underlay: Family) -> Iterator[Case]:
    """What another node sends us for our own stack."""
    two = underlay.node_two

    def carried(dst: str, port: int = VXLAN_PORT) -> Packet:
        packet = inner(family, family.pod_far, dst)
        packet[UDP].dport = port
        return packet

    packet = carried(family.gateway)
    yield Case("to the gateway", packet, dropped("FORGED_VXLAN", packet), came_from=two)
    packet = carried(family.gateway, 53)
    yield Case("to another port", packet, passed(packet, "STACK"), came_from=two)
    if family is underlay:
        lie = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC) / family.ip(family.pod_far, family.node_one)
        lie /= too_big(family)
        yield Case("a made up error", lie, dropped("FORGED_ERROR", lie), came_from=two)
        packet = carried(family.node_one)
        yield Case("to the VTEP", packet, dropped("FORGED_VXLAN", packet), came_from=two)
    if family is not IPV4:
        udp = bytes(carried(family.gateway))[54:]
        for name, headers in wrapping.CHAINS.items():
            packet = chained(family.pod_far, family.gateway, headers, wrapping.UDP, udp)
            yield Case(name, packet, dropped("FORGED_VXLAN", packet), came_from=two)
        rows = wrapping.unreadable(family.pod_far, family.gateway, wrapping.UDP, udp)
        for name, packet in rows:
            yield Case(name, packet, dropped("HIDDEN_HEADER", packet), came_from=two)


@in_all_families(forged)
def test_a_pod_can_send_vxlan_to_nobody_but_pods(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(made_up)
def test_no_pod_says_what_the_paths_between_nodes_carry(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(unreadable)
def test_what_may_hide_vxlan_is_dropped(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(innocent)
def test_all_else_passes(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(nested)
def test_no_vxlan_comes_out_of_the_overlay(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_overlay", underlay, case)
