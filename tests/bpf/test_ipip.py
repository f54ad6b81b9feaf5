# SPDX-License-Identifier: Apache-2.0
"""Between nodes in IPIP (lib/ipip.h): every bit of the outer header, and from whom such packets are
taken. Most rows here are attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Timestamp, fragment
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf import cases, test_from_container, wrapping
from bpf.cases import (
    Case,
    Dataplanes,
    check,
    check_tagged_is_left,
    in_all_families,
    unvouched,
)
from bpf.dataplane import Dataplane
from bpf.layout import ON
from bpf.outcomes import (
    Outcome,
    Redirect,
    dropped,
    into_pod,
    left_to_others,
    out_of_uplink,
    out_of_veth,
    passed,
    to_stack,
    with_macs,
)
from bpf.test_random_packets import entering, find_vtep, read_addresses
from bpf.world import (
    FAMILIES,
    FOREIGN_MAC,
    GATEWAY_MAC,
    GROUP_MAC,
    IPV4,
    IPV6,
    NO_NEIGHBOUR,
    OVERLAY_MAC,
    OVERLAY_MTU,
    PAYLOAD,
    POD_ONE_MAC,
    POD_TWO_MAC,
    ROUTER_MAC,
    STACK_IFINDEX,
    UPLINK_IFINDEX,
    UPLINK_MAC,
    VETH_TWO,
    VXLAN_PORT,
    Family,
    Fib,
    NextHop,
    Tables,
    second_addresses,
)

pytestmark = pytest.mark.root

OWN_MAC = "00:00:00:00:00:00"  # test_run's packets come in on the loopback device
OTHER_LINK = 17
PROTO = {IPV4.name: 4, IPV6.name: 41}
FROM_POD_ONE = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
ECN_FIELD = {IPV4.name: "tos", IPV6.name: "tc"}
NOT_ECT, ECT1, ECT0, CE = range(4)


def tables(underlay: Family, **changes: Any) -> Tables:
    """Both other nodes take IPIP; `changes` are of the next hops."""
    hop = NextHop(**{"ipip": True, **changes})
    return replace(
        second_addresses(underlay), nexthops={underlay.node_two: hop, underlay.node_three: hop}
    )


def in_ipip(
    underlay: Family, family: Family, inner: bytes, *, src: str = "", dst: str = "", **fields: Any
) -> Packet:
    """An inner packet from one node to another; node two to node one if nothing is said."""
    plain: dict[str, Any] = {"ttl": 64, "flags": "DF", "id": 0, "proto": PROTO[family.name]}
    if underlay is IPV6:
        plain = {"hlim": 64, "nh": PROTO[family.name]}
    outer = underlay.ip(src or underlay.node_two, dst or underlay.node_one, **plain | fields)
    return Ether(bytes(Ether(src=ROUTER_MAC, dst=OWN_MAC) / outer / Raw(inner)))


def inner_of(family: Family, src: str, dst: str, **fields: Any) -> Packet:
    return family.ip(src, dst, **fields) / PAYLOAD


def unwrapped(family: Family, inner: bytes) -> Packet:
    """The frame of `in_ipip` without its outer IP header."""
    kind = 0x0800 if family is IPV4 else 0x86DD
    return Ether(src=ROUTER_MAC, dst=OWN_MAC, type=kind) / Raw(bytes(inner))


def in_pod_two(family: Family, inner: bytes) -> Outcome:
    return into_pod(VETH_TWO, with_macs(unwrapped(family, inner), src=GATEWAY_MAC, dst=POD_TWO_MAC))


def in_stack(family: Family, inner: bytes) -> Outcome:
    return to_stack(with_macs(unwrapped(family, inner), src=ROUTER_MAC, dst=GATEWAY_MAC))


def refused_inside(reason: str, family: Family, inner: bytes) -> Outcome:
    """Dropped with its outer header removed."""
    return dropped(reason, unwrapped(family, inner))


# What other nodes send


def taken(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay)
    ways = {
        "pod to pod": (family.pod_far, family.pod_two, in_pod_two),
        "gateway to pod": (family.far_gateway, family.pod_two, in_pod_two),
        "node to pod": (family.seconds[1], family.pod_two, in_pod_two),
        "pod to gateway": (family.pod_far, family.gateway, in_stack),
        "pod to node": (family.pod_far, family.seconds[0], in_stack),
        "node to node": (family.seconds[1], family.seconds[0], in_stack),
    }
    for what, (src, dst, where) in ways.items():
        inner = bytes(inner_of(family, src, dst))
        yield Case(what, in_ipip(underlay, family, inner), where(family, inner), known)
    inner = bytes(inner_of(family, family.pod_third, family.pod_two))
    packet = in_ipip(underlay, family, inner, src=underlay.node_three)
    yield Case("another node's", packet, in_pod_two(family, inner), known)
    inner = bytes(inner_of(family, family.pod_far, family.pod_two))
    packet = in_ipip(underlay, family, inner + b"padded")
    yield Case("bytes behind the inner packet", packet, in_pod_two(family, inner + b"padded"),
               known)  # fmt: skip
    packet = in_ipip(underlay, family, inner) / Raw(b"pad")
    yield Case("bytes behind the outer packet", packet, in_pod_two(family, inner + b"pad"), known)
    if family is IPV4:
        whole = IP(src=family.pod_far, dst=family.pod_two) / UDP() / Raw(bytes(80))
        for number, part in enumerate(fragment(whole, fragsize=48)):
            packet = in_ipip(underlay, family, bytes(part))
            yield Case(f"fragment {number}", packet, in_pod_two(family, bytes(part)), known)
    if underlay is IPV6:
        options = IPv6ExtHdrDestOpt(nh=PROTO[family.name], options=[])
        head = bytes(options)
        packet = in_ipip(underlay, family, head + inner, nh=60)
        yield Case("with the option of ip6tnl", packet, in_pod_two(family, inner), known)


def refused(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay)
    inner = bytes(inner_of(family, family.pod_far, family.pod_two))
    packet = in_ipip(underlay, family, inner, src=underlay.stranger)
    yield Case("from a stranger", packet, dropped("UNKNOWN_VTEP", packet), known)
    packet = in_ipip(underlay, family, inner, src=underlay.node_one)
    yield Case("from this node itself", packet, dropped("UNKNOWN_VTEP", packet), known)
    packet = in_ipip(underlay, family, inner, src=underlay.seconds[1])
    yield Case("from a node's second address", packet, dropped("UNKNOWN_VTEP", packet), known)
    sources = {
        "another node's pod": family.pod_third,
        "another node": family.seconds[2],
        "this node's own pod": family.pod_one,
        "this node's gateway": family.gateway,
        "this node's address": family.seconds[0],
        "nobody of the cluster": family.nobody,
        "the world": family.world,
    }
    for what, src in sources.items():
        inner = bytes(inner_of(family, src, family.pod_two))
        out = refused_inside("SPOOFED_INNER", family, inner)
        yield Case(f"as {what}", in_ipip(underlay, family, inner), out, known)
    targets = {
        "nobody": family.nobody,
        "a pod of another node": family.pod_third,
        "the world": family.world,
        "a node's second address": family.seconds[2],
    }
    for what, dst in targets.items():
        inner = bytes(inner_of(family, family.pod_far, dst))
        out = refused_inside("UNKNOWN_DESTINATION", family, inner)
        yield Case(f"to {what}", in_ipip(underlay, family, inner), out, known)
    inner = bytes(inner_of(family, family.pod_far, family.group))
    out = refused_inside("MULTICAST", family, inner)
    yield Case("to a group", in_ipip(underlay, family, inner), out, known)
    if family is IPV6:
        inner = bytes(inner_of(family, "fe80::1", family.pod_two))
        out = refused_inside("LINK_LOCAL", family, inner)
        yield Case("link-local", in_ipip(underlay, family, inner), out, known)
        inner = bytes(inner_of(family, "::ffff:10.1.2.11", family.pod_two))
        out = refused_inside("BAD_HEADER", family, inner)
        yield Case("v4-mapped", in_ipip(underlay, family, inner), out, known)


def malformed(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay)
    inner = bytes(inner_of(family, family.pod_far, family.pod_two))
    long = bytes(inner_of(family, family.pod_far, family.pod_two) / Raw(bytes(40)))
    packet = in_ipip(underlay, family, long[:-40]) / Raw(bytes(40))
    out = refused_inside("TRUNCATED", family, long)
    yield Case("longer than the outer packet", packet, out, known)
    packet = in_ipip(underlay, family, long[:-40])
    yield Case("longer than the frame", packet,
               refused_inside("TRUNCATED", family, long[:-40]), known)  # fmt: skip
    other = IPV6 if family is IPV4 else IPV4
    strange = bytes(inner_of(other, other.pod_far, other.pod_two))
    wrong: dict[str, Any] = {"proto" if underlay is IPV4 else "nh": PROTO[family.name]}
    packet = in_ipip(underlay, other, strange, **wrong)
    yield Case("another version than the outer header says", packet,
               refused_inside("BAD_HEADER", family, strange), known)  # fmt: skip
    if underlay is IPV4:
        packet = in_ipip(underlay, family, inner, chksum=0x1234)
        yield Case("outer checksum", packet, dropped("BAD_HEADER", packet), known)
        packet = in_ipip(underlay, family, inner, options=[IPOption_Timestamp()])
        yield Case("outer options", packet, dropped("HIDDEN_HEADER", packet), known)
        parts: dict[str, dict[str, Any]] = {
            "first": {"flags": "MF"},
            "last": {"flags": 0, "frag": 8},
        }
        for name, fields in parts.items():
            packet = in_ipip(underlay, family, inner, **fields)
            yield Case(f"{name} outer fragment", packet, dropped("HIDDEN_HEADER", packet), known)
    else:
        endless = bytes([PROTO[family.name], 255]) + bytes(6)
        packet = in_ipip(underlay, family, endless + inner, nh=60)
        yield Case("options without end", packet, dropped("REWRITE_FAILED", packet), known)


def carrying(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay)
    to_node_one = family.ip(family.pod_far, family.seconds[0])
    inner = bytes(to_node_one / UDP(dport=VXLAN_PORT) / Raw(bytes(16)))
    out = refused_inside("FORGED_VXLAN", family, inner)
    yield Case("VXLAN to the node", in_ipip(underlay, family, inner), out, known)
    for inside in FAMILIES:
        forged = bytes(inner_of(inside, inside.pod_third, inside.pod_two))
        fields: dict[str, Any] = {"proto" if family is IPV4 else "nh": PROTO[inside.name]}
        inner = bytes(family.ip(family.pod_far, family.seconds[0], **fields) / Raw(forged))
        out = refused_inside("FORGED_IPIP", family, inner)
        yield Case(f"IPIP of {inside.name}", in_ipip(underlay, family, inner), out, known)
        inner = bytes(family.ip(family.pod_far, family.pod_two, **fields) / Raw(forged))
        yield Case(f"a pod's own tunnel with {inside.name}", in_ipip(underlay, family, inner),
                   in_pod_two(family, inner), known)  # fmt: skip
    message = ICMP(type=5) if family is IPV4 else ICMPv6ND_RA()
    inner = bytes(family.ip(family.pod_far, family.pod_two) / message / Raw(bytes(16)))
    out = refused_inside("NEIGHBOUR_MESSAGE", family, inner)
    yield Case("a neighbour's message", in_ipip(underlay, family, inner), out, known)


def left(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay)
    inner = bytes(inner_of(family, family.pod_far, family.pod_two))
    packets = {
        "to another address of the node": in_ipip(underlay, family, inner, dst=underlay.seconds[0]),
        "through this node": in_ipip(underlay, family, inner, dst=underlay.node_three),
        "no IPIP": Ether(dst=OWN_MAC) / inner_of(underlay, underlay.node_two, underlay.node_one),
        "without an outer header": unwrapped(family, inner),
    }
    packet = in_ipip(underlay, family, inner)
    packet.dst = FOREIGN_MAC
    packets["to another station"] = packet
    packet = in_ipip(underlay, family, inner)
    packet.dst = GROUP_MAC
    packets["to a group of stations"] = packet
    if underlay is IPV6:
        head = bytes(IPv6ExtHdrFragment(nh=PROTO[family.name], m=1))
        packets["an outer fragment"] = in_ipip(underlay, family, head + inner, nh=44)
    for what, packet in packets.items():
        yield Case(what, packet, left_to_others(packet), known)


@in_all_families(taken)
def test_nodes_reach_pods_and_the_node(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_underlay", underlay, case)


@in_all_families(refused)
def test_whoever_is_not_the_node_of_the_source_is_refused(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_underlay", underlay, case)


@in_all_families(malformed)
def test_what_is_not_plain_is_refused(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_underlay", underlay, case)


@in_all_families(carrying)
def test_a_node_may_send_no_more_than_in_vxlan(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_underlay", underlay, case)


@in_all_families(left)
def test_what_is_not_the_overlays_passes_untouched(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_underlay", underlay, case)


@in_all_families(taken)
def test_switched_off_nothing_is_taken(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_underlay", underlay, replace(case, outcome=left_to_others(case.packet)))


def test_a_packet_of_another_vlan_is_left_alone(
    ipip_dataplanes: Dataplanes, family: Family
) -> None:
    packet = in_ipip(IPV4, family, bytes(inner_of(family, family.pod_far, family.pod_two)))
    check_tagged_is_left(ipip_dataplanes[IPV4.name], tables(IPV4), packet)


MERGED = {
    (NOT_ECT, NOT_ECT): NOT_ECT, (NOT_ECT, ECT0): NOT_ECT, (NOT_ECT, ECT1): NOT_ECT,
    (ECT0, NOT_ECT): ECT0, (ECT0, ECT0): ECT0, (ECT0, ECT1): ECT1, (ECT0, CE): CE,
    (ECT1, NOT_ECT): ECT1, (ECT1, ECT0): ECT1, (ECT1, ECT1): ECT1, (ECT1, CE): CE,
    (CE, NOT_ECT): CE, (CE, ECT0): CE, (CE, ECT1): CE, (CE, CE): CE,
}  # fmt: skip
"""RFC 6040, figure 4: (inner, outer) to what is delivered."""


def marked(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay)
    pods = family.pod_far, family.pod_two

    def inside(ecn: int) -> bytes:
        fields: dict[str, Any] = {ECN_FIELD[family.name]: 0xB8 | ecn}
        return bytes(inner_of(family, *pods, **fields))

    def frame(inner: bytes, ecn: int) -> Packet:
        fields: dict[str, Any] = {ECN_FIELD[underlay.name]: ecn}
        return in_ipip(underlay, family, inner, **fields)

    for (inner, outer), merged in MERGED.items():
        packet = frame(inside(inner), outer)
        yield Case(f"{inner} in {outer}", packet, in_pod_two(family, inside(merged)), known)
    out = refused_inside("CONGESTED", family, inside(NOT_ECT))
    packet = frame(inside(NOT_ECT), CE)
    yield Case("congestion that nobody can be told of", packet, out, known)


@in_all_families(marked)
def test_congestion_marks_are_merged(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_underlay", underlay, case)


@pytest.mark.parametrize("underlay", FAMILIES, ids=lambda one: one.name)
def test_before_linux_6_3_another_version_takes_the_pods_host_end(
    make_dataplane: Callable[..., Dataplane], family: Family, underlay: Family
) -> None:
    """skb->protocol stays that of the outer header, and the host end's receiver sets it anew."""
    dataplane = make_dataplane(underlay, ipip=ON, decap_l3=b"\0")
    dataplane.fill(tables(underlay))
    inner = bytes(inner_of(family, family.pod_far, family.pod_two))

    outcome = dataplane.run("from_underlay", in_ipip(underlay, family, inner))

    out = in_pod_two(family, inner)
    if family is not underlay:
        out = out_of_veth(VETH_TWO, unwrapped(family, inner))
    assert outcome == out


# What this node sends


def wrapped(underlay: Family, family: Family, packet: Packet, to: str, **fields: Any) -> Packet:
    """The frame on the wire."""
    inner = bytes(packet)[14:]
    frame = in_ipip(underlay, family, inner, src=underlay.node_one, dst=to, **fields)
    return with_macs(frame, src=UPLINK_MAC, dst=ROUTER_MAC)


in_vxlan = partial(cases.in_vxlan, may_be_cut=True)


def sent(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay)
    two = underlay.node_two
    for what, dst, vtep in (
        ("to a pod", family.pod_far, two),
        ("to a gateway", family.far_gateway, two),
        ("to a node", family.seconds[1], two),
        ("to another node's pod", family.pod_third, underlay.node_three),
    ):
        packet = family.from_pod_one(dst)
        out = out_of_uplink(wrapped(underlay, family, packet, vtep))
        yield Case(what, packet, out, known)
    full = test_from_container.sized(family, family.pod_far, OVERLAY_MTU)
    yield Case("as big as fits", full, out_of_uplink(wrapped(underlay, family, full, two)), known)
    tcp = FROM_POD_ONE / family.ip(family.pod_one, family.pod_far) / TCP(dport=80)
    yield Case("TCP", tcp, out_of_uplink(wrapped(underlay, family, tcp, two)), known)
    for ecn in (NOT_ECT, ECT1, ECT0, CE):
        fields: dict[str, Any] = {ECN_FIELD[family.name]: 0xB8 | ecn}
        packet = FROM_POD_ONE / family.ip(family.pod_one, family.pod_far, **fields) / UDP()
        outside: dict[str, Any] = {ECN_FIELD[underlay.name]: ecn}
        frame = wrapped(underlay, family, packet, two, **outside)
        yield Case(f"ECN {ecn}, and a DSCP that stays inside", packet, out_of_uplink(frame), known)


def not_sent(family: Family, underlay: Family) -> Iterator[Case]:
    packet = family.from_pod_one(family.pod_far)
    older = tables(underlay, ipip=False)
    yield Case(
        "to a node that takes VXLAN only",
        packet,
        in_vxlan(underlay, packet),
        older,
    )
    narrow = replace(older, path_mtus={underlay.node_two: OVERLAY_MTU - 30})
    out = cases.in_vxlan(underlay, packet)
    yield Case("and on a path that has room for it", packet, out, narrow)
    yield Case("without a next hop", packet, in_vxlan(underlay, packet))
    long = family.from_pod_one(family.pod_far) / Raw(bytes(OVERLAY_MTU))
    stack = to_stack(with_macs(long, src=POD_ONE_MAC, dst=GATEWAY_MAC))
    yield Case("too long", long, stack, tables(underlay))
    # test_run's segments are of no protocol, and bpf_skb_adjust_room() takes only TCP's and UDP's
    bulk = FROM_POD_ONE / family.ip(family.pod_one, family.pod_far) / TCP() / Raw(bytes(3000))
    yield Case("segments the helper refuses", bulk, in_vxlan(underlay, bulk), tables(underlay),
               gso_size=1000)  # fmt: skip


def sent_by_the_kernels_table(family: Family, underlay: Family) -> Iterator[Case]:
    """The next hop holds no more, or has no MAC."""
    packet = family.from_pod_one(family.pod_far)
    forgotten = tables(underlay, unresolved=True, dst_mac=OWN_MAC)
    bare = wrapped(underlay, family, packet, underlay.node_two)
    there = Fib(0, OTHER_LINK, FOREIGN_MAC, POD_TWO_MAC)
    frame = with_macs(bare, src=POD_TWO_MAC, dst=FOREIGN_MAC)
    moved = replace(out_of_uplink(frame), redirect=Redirect("redirect", OTHER_LINK))
    yield Case("a MAC by now", packet, moved, forgotten, fib=there)
    gateway = underlay.stranger
    yield Case("by a router", packet, moved, forgotten, fib=replace(there, gateway=gateway))
    asking = with_macs(bare, src=POD_ONE_MAC, dst=GATEWAY_MAC)

    def asked(neighbour: str, ifindex: int = UPLINK_IFINDEX) -> Outcome:
        to = Redirect("redirect_neigh", ifindex, neighbour=neighbour)
        return replace(out_of_uplink(asking), redirect=to)

    none = Fib(NO_NEIGHBOUR, OTHER_LINK)
    yield Case("none yet", packet, asked(underlay.node_two, OTHER_LINK), forgotten, fib=none)
    yield Case("no router's yet", packet, asked(gateway, OTHER_LINK), forgotten,
               fib=replace(none, gateway=gateway))  # fmt: skip
    before_5_12 = Fib(NO_NEIGHBOUR)
    yield Case("none yet, before 5.12", packet, asked(underlay.node_two), forgotten,
               fib=before_5_12)  # fmt: skip
    yield Case("no route", packet, in_vxlan(underlay, packet), forgotten)


def from_stack(family: Family, underlay: Family) -> Iterator[Case]:
    for what, source in {"gateway": family.gateway, "address": family.seconds[0]}.items():
        inner = inner_of(family, source, family.pod_far)
        packet = Ether(bytes(Ether(src=GATEWAY_MAC, dst=GATEWAY_MAC) / inner))
        out = out_of_uplink(wrapped(underlay, family, packet, underlay.node_two))
        yield Case(f"from this node's {what}", packet, out, tables(underlay))
    older = tables(underlay, ipip=False)
    outside = with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    device = replace(passed(outside, "DEVICE"), tunnel=underlay.node_two, may_be_cut=True)
    yield Case("to a node that takes VXLAN only", packet, device, older)


@in_all_families(sent)
def test_packets_leave_with_an_outer_header(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_container", underlay, case)


@in_all_families(not_sent)
def test_what_ipip_cannot_carry_leaves_in_vxlan(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_container", underlay, case)


@in_all_families(sent_by_the_kernels_table)
def test_without_a_mac_the_kernel_is_asked(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_container", underlay, case)


@in_all_families(sent_by_the_kernels_table)
def test_without_an_agent_the_kernel_is_asked(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    with unvouched(ipip_dataplanes[underlay.name]):
        check(ipip_dataplanes, "from_container", underlay, replace(case, tables=tables(underlay)))


def test_the_kernel_is_asked_as_for_a_packet_of_a_pod(ipip_dataplanes: Dataplanes) -> None:
    dataplane = ipip_dataplanes[IPV4.name]
    dataplane.fill(tables(IPV4, unresolved=True))

    dataplane.run("from_container", IPV4.from_pod_one(IPV4.pod_far))

    assert dataplane.asked == (STACK_IFINDEX, 0)


@in_all_families(from_stack)
def test_what_the_stack_sends_leaves_so_too(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "to_overlay", underlay, case)


# What a pod must not send


def forged(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay)
    for inside in FAMILIES:
        inner = bytes(inner_of(inside, inside.pod_third, inside.pod_far))
        fields: dict[str, Any] = {"proto" if family is IPV4 else "nh": PROTO[inside.name]}

        def tunnel(dst: str, inner: bytes = inner, **fields: Any) -> Packet:
            return FROM_POD_ONE / family.ip(family.pod_one, dst, **fields) / Raw(inner)

        for whom, dst in {
            "a VTEP": family.node_two,
            "a node": family.seconds[1],
            "this node": family.node_one,
            "the gateway": family.gateway,
            "the world": family.world,
        }.items():
            packet = tunnel(dst, **fields)
            yield Case(f"{inside.name} to {whom}", packet, dropped("FORGED_IPIP", packet), known)
        packet = tunnel(family.pod_far, **fields)
        out = out_of_uplink(wrapped(underlay, family, packet, underlay.node_two))
        yield Case(f"{inside.name} to a pod", packet, out, known)
        if family is IPV4:
            packet = tunnel(family.world, **fields, flags="MF")
            yield Case(f"{inside.name} in a first fragment", packet,
                       dropped("FORGED_IPIP", packet), known)  # fmt: skip
            continue
        for name, headers in wrapping.CHAINS.items():
            packet = wrapping.chained(
                family.pod_one, family.world, headers, PROTO[inside.name], inner
            )
            yield Case(f"{inside.name} behind {name}", packet, dropped("FORGED_IPIP", packet),
                       known)  # fmt: skip


@in_all_families(forged)
def test_a_pods_own_ipip_reaches_pods_only(
    ipip_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(ipip_dataplanes, "from_container", underlay, case)


def test_switched_off_a_pod_may_send_ipip_to_the_world(dataplane: Dataplane) -> None:
    packet = FROM_POD_ONE / IP(src=IPV4.pod_one, dst=IPV4.world, proto=4) / Raw(bytes(40))

    assert dataplane.run("from_container", packet).path == "STACK"


# At random


@pytest.mark.parametrize("underlay", FAMILIES, ids=lambda one: one.name)
def test_no_random_packet_gets_in_by_mistake(
    ipip_dataplanes: Dataplanes, family: Family, underlay: Family
) -> None:
    """Whatever enters is for somebody here, and of the node that its outer header says."""
    known = tables(underlay)
    packets = [
        bytes(case.packet) for rows in (taken, refused, malformed, left)
        for case in rows(family, underlay)
    ]  # fmt: skip
    dataplane = ipip_dataplanes[underlay.name]
    for packet, after, about in entering(dataplane, known, family, underlay, packets):
        source, _ = read_addresses(after) or ("", "")
        outside = read_addresses(packet)
        assert outside == (find_vtep(known, source), underlay.node_one), about
