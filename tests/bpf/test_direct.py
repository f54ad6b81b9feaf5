# SPDX-License-Identifier: Apache-2.0
"""Between nodes without outer headers (lib/direct.h): which packets leave so, and from whom they
are taken. Most rows here are attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6ND_RA
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf.cases import (
    Case,
    Dataplanes,
    check,
    check_tagged_is_left,
    in_all_families,
    in_vxlan,
    unvouched,
)
from bpf.dataplane import Dataplane
from bpf.outcomes import (
    Outcome,
    directly,
    dropped,
    into_pod,
    left_to_others,
    out_of_uplink,
    passed,
    to_neighbour,
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
    NO_NEIGHBOUR,
    NODE_THREE_MAC,
    NODE_TWO_MAC,
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

HERE = 1  # test_run's packets come in on the loopback device, whose MAC is all zeros
OWN_MAC = "00:00:00:00:00:00"
OTHER_LINK = 17
BPF_FIB_LOOKUP_OUTPUT = 2

TO_TWO = NextHop(dst_mac=NODE_TWO_MAC, on_link=True, direct=True)
TO_THREE = NextHop(dst_mac=NODE_THREE_MAC, on_link=True, direct=True)


def tables(underlay: Family, ifindex: int, **changes: object) -> Tables:
    """Both other nodes are on the link `ifindex`; `changes` are of the next hop to node two."""
    hops = {
        underlay.node_two: replace(TO_TWO, ifindex=ifindex, **changes),  # type: ignore[arg-type]
        underlay.node_three: replace(TO_THREE, ifindex=ifindex),
    }
    return replace(second_addresses(underlay), nexthops=hops)


def arriving(family: Family, src: str, dst: str, **macs: str) -> Packet:
    head = Ether(src=macs.get("eth_src", NODE_TWO_MAC), dst=macs.get("eth_dst", OWN_MAC))
    return Ether(bytes(head / family.ip(src, dst) / PAYLOAD))


def in_pod_two(packet: Packet) -> Outcome:
    return into_pod(VETH_TWO, with_macs(packet, src=GATEWAY_MAC, dst=POD_TWO_MAC))


def in_stack(packet: Packet) -> Outcome:
    return to_stack(with_macs(packet, src=packet.src, dst=GATEWAY_MAC))


# What other nodes send


def taken(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay, HERE)
    second = family.seconds
    packet = arriving(family, family.pod_far, family.pod_two)
    yield Case("pod to pod", packet, in_pod_two(packet), known)
    packet = arriving(family, family.far_gateway, family.pod_two)
    yield Case("gateway to pod", packet, in_pod_two(packet), known)
    packet = arriving(family, second[1], family.pod_two)
    yield Case("node to pod", packet, in_pod_two(packet), known)
    packet = arriving(family, family.pod_far, family.gateway)
    yield Case("pod to gateway", packet, in_stack(packet), known)
    packet = arriving(family, family.pod_far, second[0])
    yield Case("pod to node", packet, in_stack(packet), known)
    packet = arriving(family, family.pod_third, family.pod_two, eth_src=NODE_THREE_MAC)
    yield Case("another node's", packet, in_pod_two(packet), known)
    if family is IPV4:
        head = Ether(src=NODE_TWO_MAC, dst=OWN_MAC)
        whole = head / IP(src=family.pod_far, dst=family.pod_two) / UDP() / Raw(bytes(80))
        for number, part in enumerate(fragment(whole, fragsize=48)):
            yield Case(f"fragment {number}", part, in_pod_two(part), known)


def refused(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay, HERE)
    pods = family.pod_far, family.pod_two
    packet = arriving(family, *pods, eth_src=FOREIGN_MAC)
    yield Case("a stranger's MAC", packet, dropped("WRONG_NEIGHBOUR", packet), known)
    packet = arriving(family, *pods, eth_src=NODE_THREE_MAC)
    yield Case("another node's MAC", packet, dropped("WRONG_NEIGHBOUR", packet), known)
    packet = arriving(family, family.pod_third, family.pod_two)
    yield Case("right MAC, other node's pod", packet, dropped("WRONG_NEIGHBOUR", packet), known)
    packet = arriving(family, family.seconds[2], family.pod_two)
    yield Case("right MAC, other node's address", packet, dropped("WRONG_NEIGHBOUR", packet), known)
    for what, source in {
        "pod": family.pod_one,
        "gateway": family.gateway,
        "address": family.seconds[0],
        "free address": family.gateway.replace("1.1", "1.77").replace("::1", "::77"),
    }.items():
        packet = arriving(family, source, family.pod_two)
        yield Case(f"this node's own {what}", packet, dropped("SPOOFED_INNER", packet), known)
    packet = arriving(family, family.nobody, family.pod_two)
    yield Case("nobody's", packet, dropped("SPOOFED_INNER", packet), known)
    packet = arriving(family, family.nobody, family.seconds[0])
    yield Case("nobody's, to the node", packet, dropped("SPOOFED_INNER", packet), known)
    packet = arriving(family, family.pod_far, family.nobody)
    yield Case("to nobody", packet, dropped("UNKNOWN_DESTINATION", packet), known)
    packet = arriving(family, family.pod_far, family.pod_third)
    yield Case("through this node", packet, dropped("UNKNOWN_DESTINATION", packet), known)
    packet = arriving(family, family.pod_far, family.world)
    yield Case("to the world", packet, dropped("UNKNOWN_DESTINATION", packet), known)
    packet = arriving(family, *pods)
    elsewhere = tables(underlay, OTHER_LINK)
    yield Case("on another link", packet, dropped("WRONG_NEIGHBOUR", packet), elsewhere)
    packet = arriving(family, *pods, eth_src=ROUTER_MAC)
    routed = tables(underlay, HERE, dst_mac=ROUTER_MAC, on_link=False, direct=False)
    yield Case("from a router", packet, dropped("WRONG_NEIGHBOUR", packet), routed)
    packet = arriving(family, *pods, eth_src=OWN_MAC)
    unknown = tables(underlay, HERE, dst_mac=OWN_MAC, unresolved=True)
    yield Case("from no MAC", packet, dropped("WRONG_NEIGHBOUR", packet), unknown)
    packet = arriving(family, *pods)
    yield Case("no next hop", packet, dropped("WRONG_NEIGHBOUR", packet))


def carrying(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay, HERE)
    head = Ether(src=NODE_TWO_MAC, dst=OWN_MAC)
    to_node_one = family.ip(family.pod_far, family.seconds[0])
    packet = head / to_node_one / UDP(dport=VXLAN_PORT) / Raw(bytes(16))
    yield Case("VXLAN to the node", packet, dropped("FORGED_VXLAN", packet), known)
    message = ICMP(type=5) if family is IPV4 else ICMPv6ND_RA()
    packet = head / family.ip(family.pod_far, family.pod_two) / message / Raw(bytes(16))
    yield Case("a neighbour's message", packet, dropped("NEIGHBOUR_MESSAGE", packet), known)


def left(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay, HERE)
    for what, packet in {
        "to another station": arriving(
            family, family.pod_far, family.pod_two, eth_dst=NODE_THREE_MAC
        ),
        "to a group of stations": arriving(
            family, family.pod_far, family.pod_two, eth_dst=GROUP_MAC
        ),
        "to a group": arriving(family, family.pod_far, family.group),
        "world to pod": arriving(family, family.world, family.pod_two),
        "world to node": arriving(family, family.world, family.seconds[0]),
        "node to node": arriving(family, family.seconds[1], family.seconds[0]),
        "node to node, wrong MAC": arriving(
            family, family.seconds[1], family.seconds[0], eth_src=FOREIGN_MAC
        ),
    }.items():
        yield Case(what, packet, left_to_others(packet), known)


def by_the_kernels_table(family: Family, underlay: Family) -> Iterator[Case]:
    """What `nexthops` does not say, the kernel is asked for."""
    packet = arriving(family, family.pod_far, family.pod_two)
    wrong = dropped("WRONG_NEIGHBOUR", packet)
    here = Fib(0, HERE, NODE_TWO_MAC, UPLINK_MAC)
    yield Case("no next hop", packet, in_pod_two(packet), fib=here)
    moved = tables(underlay, HERE, dst_mac=FOREIGN_MAC)
    yield Case("another MAC now", packet, in_pod_two(packet), moved, fib=here)
    replugged = tables(underlay, OTHER_LINK)
    yield Case("another link now", packet, in_pod_two(packet), replugged, fib=here)
    yield Case("a third MAC", packet, wrong, fib=replace(here, dst_mac=FOREIGN_MAC))
    yield Case("on another link", packet, wrong, fib=replace(here, ifindex=OTHER_LINK))
    yield Case("a router's", packet, wrong, fib=replace(here, gateway=underlay.stranger))
    yield Case("unknown there, too", packet, wrong, fib=replace(here, result=NO_NEIGHBOUR))
    forgotten = tables(underlay, HERE, unresolved=True)
    yield Case("forgotten", packet, in_pod_two(packet), forgotten, fib=Fib(NO_NEIGHBOUR))


@in_all_families(taken)
def test_nodes_on_the_link_reach_pods_and_the_node(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_underlay", underlay, case)


@in_all_families(refused)
def test_whoever_is_not_the_node_of_the_source_is_refused(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_underlay", underlay, case)


@in_all_families(carrying)
def test_a_node_may_send_no_more_than_in_vxlan(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_underlay", underlay, case)


@in_all_families(left)
def test_what_is_not_the_overlays_passes_untouched(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_underlay", underlay, case)


@in_all_families(by_the_kernels_table)
def test_a_node_is_known_by_the_kernels_table_too(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_underlay", underlay, case)


@in_all_families(taken)
def test_switched_off_nothing_is_taken(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_underlay", underlay, replace(case, outcome=left_to_others(case.packet)))


def test_the_kernel_is_asked_about_the_link_that_a_packet_came_by(
    direct_dataplanes: Dataplanes,
) -> None:
    dataplane = direct_dataplanes[IPV4.name]
    dataplane.fill(Tables())
    dataplane.fill(second_addresses(IPV4))

    dataplane.run("from_underlay", arriving(IPV4, IPV4.pod_far, IPV4.pod_two))

    assert dataplane.asked == (HERE, BPF_FIB_LOOKUP_OUTPUT)


def test_a_packet_of_another_vlan_is_left_alone(
    direct_dataplanes: Dataplanes, family: Family
) -> None:
    packet = arriving(family, family.pod_far, family.pod_two)
    check_tagged_is_left(direct_dataplanes[IPV4.name], tables(IPV4, HERE), packet)


# What this node sends


def on_link(packet: Packet) -> Outcome:
    return directly(with_macs(packet, src=UPLINK_MAC, dst=NODE_TWO_MAC))


def sent(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay, UPLINK_IFINDEX)
    packet = family.from_pod_one(family.pod_far)
    yield Case("to a pod", packet, on_link(packet), known)
    packet = family.from_pod_one(family.far_gateway)
    yield Case("to a gateway", packet, on_link(packet), known)
    packet = family.from_pod_one(family.seconds[1])
    yield Case("to a node", packet, on_link(packet), known)
    packet = family.from_pod_one(family.pod_far)
    older = tables(underlay, UPLINK_IFINDEX, direct=False)
    yield Case("to a node that takes VXLAN only", packet, in_vxlan(underlay, packet), older)
    yield Case("without a next hop", packet, in_vxlan(underlay, packet))
    long = family.from_pod_one(family.pod_far) / Raw(bytes(OVERLAY_MTU))
    stack = to_stack(with_macs(long, src=POD_ONE_MAC, dst=GATEWAY_MAC))
    yield Case("too long", long, stack, known)


def sent_by_the_kernels_table(family: Family, underlay: Family) -> Iterator[Case]:
    """The next hop holds no more, or has no MAC."""
    packet = family.from_pod_one(family.pod_far)
    vtep, forgotten = underlay.node_two, tables(underlay, UPLINK_IFINDEX, unresolved=True)
    there = Fib(0, OTHER_LINK, FOREIGN_MAC, POD_TWO_MAC)
    moved = directly(with_macs(packet, src=POD_TWO_MAC, dst=FOREIGN_MAC), OTHER_LINK)
    yield Case("a MAC by now", packet, moved, forgotten, fib=there)
    asked = to_neighbour(vtep, packet, OTHER_LINK)
    before_5_12 = to_neighbour(vtep, packet)
    vxlan = in_vxlan(underlay, packet, may_be_cut=True)
    if family is not IPV4 and underlay is IPV4:  # the helper finds no IPv4 neighbour for IPv6
        asked = before_5_12 = vxlan
    yield Case("none yet", packet, asked, forgotten, fib=Fib(NO_NEIGHBOUR, OTHER_LINK))
    yield Case("none yet, before 5.12", packet, before_5_12, forgotten, fib=Fib(NO_NEIGHBOUR))
    yield Case("no route", packet, vxlan, forgotten)
    routed = replace(there, gateway=underlay.stranger)
    yield Case("a router", packet, vxlan, forgotten, fib=routed)


@in_all_families(sent)
def test_packets_leave_with_the_macs_of_the_link(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_container", underlay, case)


@in_all_families(sent_by_the_kernels_table)
def test_without_a_mac_the_kernel_is_asked(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_container", underlay, case)


@in_all_families(sent_by_the_kernels_table)
def test_without_an_agent_the_kernel_is_asked(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    with unvouched(direct_dataplanes[underlay.name]):
        check(
            direct_dataplanes,
            "from_container",
            underlay,
            replace(case, tables=tables(underlay, UPLINK_IFINDEX)),
        )


def test_the_kernel_is_asked_as_for_a_packet_of_a_pod(direct_dataplanes: Dataplanes) -> None:
    dataplane = direct_dataplanes[IPV4.name]
    dataplane.fill(tables(IPV4, UPLINK_IFINDEX, unresolved=True))

    dataplane.run("from_container", IPV4.from_pod_one(IPV4.pod_far))

    assert dataplane.asked == (STACK_IFINDEX, 0)


def from_stack(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay, UPLINK_IFINDEX)
    for what, source in {"gateway": family.gateway, "address": family.seconds[0]}.items():
        packet = arriving(family, source, family.pod_far, eth_src=GATEWAY_MAC, eth_dst=GATEWAY_MAC)
        yield Case(f"from this node's {what}", packet, on_link(packet), known)
    older = tables(underlay, UPLINK_IFINDEX, direct=False)
    outside = with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC)
    device = replace(passed(outside, "DEVICE"), tunnel=underlay.node_two)
    yield Case("to a node that takes VXLAN only", packet, device, older)


@in_all_families(from_stack)
def test_what_the_stack_sends_leaves_so_too(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "to_overlay", underlay, case)


def test_own_vxlan_stays_beside_it(make_dataplane: Callable[..., Dataplane]) -> None:
    dataplane = make_dataplane(IPV4, direct=b"\1", own_encap=b"\1")
    dataplane.fill(tables(IPV4, UPLINK_IFINDEX, direct=False))
    to_two = dataplane.run("from_container", IPV4.from_pod_one(IPV4.pod_far))
    to_three = dataplane.run("from_container", IPV4.from_pod_one(IPV4.pod_third))

    assert to_two == out_of_uplink(to_two.packet)
    assert to_three.path == "DIRECT"


def test_a_published_address_outside_of_the_clusters_goes_in_vxlan(
    make_dataplane: Callable[..., Dataplane],
) -> None:
    """The receiver could not know it by its networks. Both ends must have one."""
    dataplane = make_dataplane(IPV4, direct=b"\1")
    known, elsewhere = tables(IPV4, UPLINK_IFINDEX), "203.0.113.7"
    endpoints = {**known.endpoints, "203.0.113.1": known.endpoints[IPV4.pod_one]}
    remotes = {**known.remotes, f"{elsewhere}/32": IPV4.node_two}
    dataplane.fill(replace(known, endpoints=endpoints, remotes=remotes))

    both = dataplane.run("from_container", IPV4.from_pod_one(elsewhere, src="203.0.113.1"))
    one = dataplane.run("from_container", IPV4.from_pod_one(elsewhere))

    assert (both.path, both.tunnel, both.may_be_cut) == ("DEVICE", IPV4.node_two, True)
    assert one.path == "DIRECT"


# At random


@pytest.mark.parametrize("underlay", FAMILIES, ids=lambda one: one.name)
def test_no_random_packet_gets_in_by_mistake(
    direct_dataplanes: Dataplanes, family: Family, underlay: Family
) -> None:
    """Whatever enters is for somebody here, of another node, and from that node's MAC."""
    known = tables(underlay, HERE)
    packets = [
        bytes(case.packet) for rows in (taken, refused, left) for case in rows(family, underlay)
    ]
    macs = {underlay.node_two: NODE_TWO_MAC, underlay.node_three: NODE_THREE_MAC}
    dataplane = direct_dataplanes[underlay.name]
    for packet, _, about in entering(dataplane, known, family, underlay, packets):
        source, _ = read_addresses(packet) or ("", "")
        assert packet[6:12].hex(":") == macs.get(find_vtep(known, source)), about
