# SPDX-License-Identifier: Apache-2.0
"""What neighbours and routers on a link say to each other does not pass between pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf import wrapping
from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.outcomes import dropped, into_pod, left_to_others, to_node
from bpf.test_from_container import delivered, encapsulated
from bpf.test_from_overlay import delivered as unwrapped
from bpf.test_own_decap import built, outside, udp, vxlan
from bpf.world import (
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    POD_ONE_MAC,
    VETH_ONE,
    VETH_TWO,
    Family,
    cluster,
)
from bpf.wrapping import ICMPV6, chained, fragment

pytestmark = pytest.mark.root

FROM_POD_ONE: Packet = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
FROM_NODE_TWO: Packet = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC)
REDIRECT, ROUTER_ADVERTISEMENT, ECHO_REQUEST, UNREACHABLE = 5, 9, 8, 3
REASON = "NEIGHBOUR_MESSAGE"


def nd(family: Family) -> dict[str, Packet]:
    """Each message of RFC 4861, by its name."""
    liar = ICMPv6NDOptDstLLAddr(lladdr=POD_ONE_MAC)
    return {
        "router solicitation": ICMPv6ND_RS(),
        "router advertisement": ICMPv6ND_RA(routerlifetime=1800),
        "neighbour solicitation": ICMPv6ND_NS(tgt=family.gateway),
        "neighbour advertisement": ICMPv6ND_NA(tgt=family.gateway, R=1, O=1) / liar,
        "redirect": ICMPv6ND_Redirect(tgt=family.pod_one, dst=family.world) / liar,
    }


def upper(family: Family, message: Packet, dst: str) -> bytes:
    """The bytes of an ICMPv6 message to `dst`, with its checksum."""
    return bytes(IPv6(src=family.pod_one, dst=dst, hlim=255) / message)[40:]


def from_pods(family: Family, _underlay: Family) -> Iterator[Case]:
    targets = {
        "a pod of this node": family.pod_two,
        "a pod of node two": family.pod_far,
        "the gateway": family.gateway,
        "the world": family.world,
    }
    for whom, dst in targets.items():
        if family is IPV4:
            for kind in (REDIRECT, ROUTER_ADVERTISEMENT):
                packet = FROM_POD_ONE / IP(src=family.pod_one, dst=dst) / ICMP(type=kind)
                yield Case(f"ICMP {kind} to {whom}", packet, dropped(REASON, packet))
            continue
        for name, message in nd(family).items():
            packet = FROM_POD_ONE / IPv6(src=family.pod_one, dst=dst, hlim=255) / message
            if not isinstance(message, ICMPv6ND_NS):  # that is answered, test_neighbour.py
                yield Case(f"{name} to {whom}", packet, dropped(REASON, packet))
            for behind, headers in wrapping.CHAINS.items():
                data = upper(family, message, dst)
                packet = chained(family.pod_one, dst, headers, ICMPV6, data)
                what = f"{name} behind {behind} to {whom}"
                yield Case(what, packet, dropped(REASON, packet))


def odd_shapes(family: Family, underlay: Family) -> Iterator[Case]:
    if family is IPV4:
        shapes: dict[str, dict[str, Any]] = {
            "with options": {"options": [IPOption_Timestamp()]},
            "a first fragment": {"flags": "MF"},
        }
        for name, fields in shapes.items():
            ip4 = IP(src=family.pod_one, dst=family.pod_two, **fields)
            packet = FROM_POD_ONE / ip4 / ICMP(type=REDIRECT)
            yield Case(name, packet, dropped(REASON, packet))
        return
    data = upper(family, nd(family)["neighbour advertisement"], family.pod_two)
    queued = cluster(underlay, queued=True)
    packet = FROM_POD_ONE / IPv6(src=family.pod_one, dst=family.pod_two, nh=ICMPV6) / Raw(data)
    yield Case("of a queued pod", packet, dropped(REASON, packet), queued)
    for name, packet in wrapping.unreadable(family.pod_one, family.pod_two, ICMPV6, data):
        yield Case(name, packet, dropped("HIDDEN_HEADER", packet))
        yield Case(f"queued: {name}", packet, dropped("HIDDEN_HEADER", packet), queued)


def innocent(family: Family, underlay: Family) -> Iterator[Case]:
    if family is IPV4:
        for kind in (ECHO_REQUEST, UNREACHABLE):
            packet = FROM_POD_ONE / IP(src=family.pod_one, dst=family.pod_two) / ICMP(type=kind)
            yield Case(f"ICMP {kind}", packet, into_pod(VETH_TWO, delivered(packet)))
        ip4 = IP(src=family.pod_one, dst=family.pod_two, frag=2)
        packet = FROM_POD_ONE / ip4 / ICMP(type=REDIRECT)
        yield Case("a later fragment", packet, into_pod(VETH_TWO, delivered(packet)))
        return
    echo = upper(family, ICMPv6EchoRequest(), family.pod_two)
    for name, headers in {"nothing": (), **wrapping.CHAINS}.items():
        packet = chained(family.pod_one, family.pod_two, headers, ICMPV6, echo)
        there = into_pod(VETH_TWO, delivered(packet))
        yield Case(f"an echo request behind {name}", packet, there)
        far = chained(family.pod_one, family.pod_far, headers, ICMPV6, echo)
        there = to_node(underlay.node_two, encapsulated(far))
        yield Case(f"the same to node two, behind {name}", far, there)
    data = upper(family, nd(family)["redirect"], family.pod_two)
    later = chained(family.pod_one, family.pod_two, (fragment(offset=1),), ICMPV6, data)
    yield Case("a later fragment", later, into_pod(VETH_TWO, delivered(later)))
    echo_queued = left_to_others(packet, "QDISC")
    yield Case("an echo request, queued", packet, echo_queued, cluster(underlay, queued=True))


def from_nodes(family: Family, underlay: Family) -> Iterator[Case]:
    """Of another node, whose programs may be older, or not its own any more."""
    two = underlay.node_two
    for whom, dst in {"a pod": family.pod_one, "our gateway": family.gateway}.items():
        if family is IPV4:
            ip4 = IP(src=family.pod_far, dst=dst)
            packet = FROM_NODE_TWO / ip4 / ICMP(type=REDIRECT)
            yield Case(f"redirect to {whom}", packet, dropped(REASON, packet), came_from=two)
            continue
        for name, message in nd(family).items():
            for src in (family.pod_far, family.far_gateway):
                packet = FROM_NODE_TWO / IPv6(src=src, dst=dst, hlim=255) / message
                what = f"{name} of {src} to {whom}"
                yield Case(what, packet, dropped(REASON, packet), came_from=two)
            for behind, headers in wrapping.CHAINS.items():
                packet = chained(family.pod_far, dst, headers, ICMPV6, upper(family, message, dst))
                what = f"{name} behind {behind} to {whom}"
                yield Case(what, packet, dropped(REASON, packet), came_from=two)
    if family is not IPV4:
        data = upper(family, nd(family)["redirect"], family.pod_one)
        rows = wrapping.unreadable(family.pod_far, family.pod_one, ICMPV6, data)
        for name, packet in rows:
            yield Case(name, packet, dropped("HIDDEN_HEADER", packet), came_from=two)
        echo = upper(family, ICMPv6EchoRequest(), family.pod_one)
        for name, headers in wrapping.CHAINS.items():
            packet = chained(family.pod_far, family.pod_one, headers, ICMPV6, echo)
            there = into_pod(VETH_ONE, unwrapped(packet))
            yield Case(f"an echo request behind {name}", packet, there, came_from=two)


def in_vxlan(family: Family, underlay: Family) -> Iterator[Case]:
    """To the program that takes the outer headers off: it leaves them to the one that counts."""
    before = outside(underlay) / udp() / vxlan()

    def left(name: str, inside: Packet) -> Case:
        whole = built(before / inside)
        return Case(name, whole, left_to_others(whole, "DEVICE"))

    if family is IPV4:
        for kind in (REDIRECT, ROUTER_ADVERTISEMENT):
            ip4 = IP(src=family.pod_far, dst=family.pod_one)
            yield left(f"ICMP {kind}", FROM_NODE_TWO / ip4 / ICMP(type=kind))
        echo4 = FROM_NODE_TWO / IP(src=family.pod_far, dst=family.pod_one) / ICMP()
        there = into_pod(VETH_ONE, unwrapped(echo4))
        yield Case("an echo request", built(before / echo4), there)
        return
    for name, message in nd(family).items():
        for behind, headers in {"nothing": (), **wrapping.CHAINS}.items():
            data = upper(family, message, family.pod_one)
            inside = chained(family.pod_far, family.pod_one, headers, ICMPV6, data)
            yield left(f"{name} behind {behind}", inside)
    data = upper(family, nd(family)["redirect"], family.pod_one)
    for name, inside in wrapping.unreadable(family.pod_far, family.pod_one, ICMPV6, data):
        yield left(name, inside)
    echo = upper(family, ICMPv6EchoRequest(), family.pod_one)
    for name, headers in {"nothing": (), **wrapping.CHAINS}.items():
        inside = chained(family.pod_far, family.pod_one, headers, ICMPV6, echo)
        there = into_pod(VETH_ONE, unwrapped(inside))
        yield Case(f"an echo request behind {name}", built(before / inside), there)


@in_all_families(from_pods)
def test_a_pod_is_nobodys_neighbour(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(odd_shapes)
def test_no_shape_hides_a_message(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(innocent)
def test_all_else_passes(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(from_nodes)
def test_no_node_is_a_neighbour_of_a_pod(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_overlay", underlay, case)


@in_all_families(in_vxlan)
def test_none_is_unwrapped_straight_into_a_pod(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(own_dataplanes, "from_underlay", underlay, case)
