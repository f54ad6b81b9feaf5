# SPDX-License-Identifier: Apache-2.0
"""from_container and to_overlay where the path to a node carries less than the overlay's MTU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf.cases import Case, Dataplanes, check, in_all_families, unvouched
from bpf.outcomes import Outcome, answered, passed, to_node, to_stack, with_macs
from bpf.test_from_container import FROM_POD_ONE, encapsulated, sized
from bpf.test_own_encap import known
from bpf.world import (
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    OVERLAY_MTU,
    POD_ONE_MAC,
    VETH_ONE,
    Family,
    NextHop,
    Tables,
    cluster,
)

pytestmark = pytest.mark.root

NARROW = 1350
TINY = 1200
"""Below what every IPv6 sender may send."""
LEAST6 = 1280
QUOTE = 128
TCP_HEADER, IP4_HEADER, IP6_HEADER = 20, 20, 40


def narrowed(underlay: Family, mtu: int) -> Tables:
    """The path to node two; that to node three is as wide as the overlay."""
    return replace(cluster(underlay), path_mtus={underlay.node_two: mtu})


def unbreakable(packet: Packet) -> Packet:
    """The same packet, which no router may fragment; IPv6's are so anyway."""
    made = packet.copy()
    if IP in made:
        made[IP].flags = "DF"
    return Ether(bytes(made))


def error(family: Family, packet: Packet, mtu: int) -> Packet:
    """What the sender is told: RFC 1191 4, RFC 4443 3.2."""
    eth = Ether(src=GATEWAY_MAC, dst=POD_ONE_MAC)
    quote = Raw(bytes(packet)[14 : 14 + QUOTE])
    if family is IPV4:
        ip4 = IP(src=family.gateway, dst=family.pod_one, tos=0xC0, id=0, ttl=64)
        return Ether(bytes(eth / ip4 / ICMP(type=3, code=4, nexthopmtu=mtu) / quote))
    ip6 = family.ip(family.gateway, family.pod_one, hlim=64)
    return Ether(bytes(eth / ip6 / ICMPv6PacketTooBig(mtu=mtu) / quote))


def to_pods(family: Family, underlay: Family) -> Iterator[Case]:
    narrow = narrowed(underlay, NARROW)
    fits = sized(family, family.pod_far, NARROW)
    there = to_node(underlay.node_two, encapsulated(fits))
    yield Case("as big as the path", fits, there, narrow)
    big = sized(family, family.pod_far, NARROW + 1)
    yield Case("a byte above the path", big, to_stack(big), narrow)
    third = sized(family, family.pod_third, OVERLAY_MTU)
    there = to_node(underlay.node_three, encapsulated(third))
    yield Case("another path", third, there, narrow)
    wide = narrowed(underlay, 9000)
    big = sized(family, family.pod_far, OVERLAY_MTU + 1)
    yield Case("no path is wider than the overlay", big, to_stack(big), wide)

    small = family.ip(family.pod_one, family.pod_far)
    if family is IPV4:
        small.frag = 7
    else:
        small /= IPv6ExtHdrFragment(offset=7)
    small = Ether(bytes(FROM_POD_ONE / small / Raw(bytes(64))))
    yield Case("a small fragment of what may be too big", small, to_stack(small), narrow)
    there = to_node(underlay.node_two, encapsulated(small))
    yield Case("a small fragment on a wide path", small, there, narrowed(underlay, 9000))

    bulk = segments(family, family.pod_far)
    fits_by = NARROW - (IP4_HEADER if family is IPV4 else IP6_HEADER) - TCP_HEADER
    there = to_node(underlay.node_two, encapsulated(bulk))
    yield Case("segments as big as the path", bulk, there, narrow, gso_size=fits_by)
    yield Case("segments above the path", bulk, to_stack(bulk), narrow, gso_size=fits_by + 1)


def segments(family: Family, dst: str) -> Packet:
    return Ether(bytes(FROM_POD_ONE / family.ip(family.pod_one, dst) / TCP() / Raw(bytes(2900))))


def to_pods_on_tiny_paths(family: Family, underlay: Family) -> Iterator[Case]:
    tiny = narrowed(underlay, TINY)
    least = sized(family, family.pod_far, LEAST6)
    big = sized(family, family.pod_far, LEAST6 + 1)
    if family is IPV4:
        yield Case("IPv4 is told any MTU", least, to_stack(least), tiny)
    else:
        cut = to_node(underlay.node_two, encapsulated(least), may_be_cut=True)
        yield Case("what IPv6 may send", least, cut, tiny)
        yield Case("what it may not", big, to_stack(big), tiny)


def to_the_node(family: Family, underlay: Family) -> Iterator[Case]:
    if family is not underlay:
        return
    for name, tables, mtu in (
        ("the overlay", cluster(underlay), OVERLAY_MTU),
        ("the path", narrowed(underlay, NARROW), NARROW),
    ):
        big = unbreakable(sized(family, family.node_two, mtu + 1))
        told = answered(VETH_ONE, error(family, big, mtu))
        yield Case(f"a byte above {name}", big, told, tables)
        fits = unbreakable(sized(family, family.node_two, mtu))
        yield Case(f"as big as {name}", fits, to_node(family.node_two, encapsulated(fits)), tables)
        if family is IPV4:
            cut = sized(family, family.node_two, mtu + 1)
            whole = to_node(family.node_two, encapsulated(cut), may_be_cut=True)
            yield Case(f"above {name}, and may be cut", cut, whole, tables)
    if family is not IPV4:
        big = sized(family, family.node_two, LEAST6 + 1)
        told = answered(VETH_ONE, error(family, big, LEAST6))
        yield Case("no sender is told less", big, told, narrowed(underlay, TINY))


def bulk_to_the_node(family: Family, underlay: Family) -> Iterator[Case]:
    """Segments: the error is no segment, and quotes the packet as it was."""
    if family is not underlay:
        return
    big = unbreakable(segments(family, family.node_two))
    told = answered(VETH_ONE, error(family, big, NARROW))
    yield Case("segments above the path", big, told, narrowed(underlay, NARROW), gso_size=1400)


@in_all_families(to_pods)
def test_what_a_path_does_not_carry_goes_to_the_stack(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(to_pods)
def test_the_same_without_an_agent(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    """Path MTUs need nobody who vouches for them."""
    with unvouched(own_dataplanes[underlay.name]):
        check(own_dataplanes, "from_container", underlay, case)


@in_all_families(to_pods_on_tiny_paths)
def test_ipv6_packets_that_every_link_carries_are_cut_outside(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(to_the_node)
def test_what_is_too_big_for_a_nodes_own_address_is_answered_or_cut(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


@in_all_families(bulk_to_the_node)
def test_segments_too_big_for_a_nodes_own_address_are_answered(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_container", underlay, case)


def by_next_hop(family: Family, underlay: Family) -> Iterator[Case]:
    big = sized(family, family.pod_far, NARROW + 1)
    hops = {underlay.node_two: NextHop(mtu=NARROW)}
    tables = replace(narrowed(underlay, NARROW), nexthops=hops)
    yield Case("a byte above the path", big, to_stack(big), tables)


@in_all_families(by_next_hop)
def test_what_a_next_hop_does_not_carry_goes_to_the_stack(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(own_dataplanes, "from_container", underlay, case)


def of_the_stack(family: Family, underlay: Family) -> Iterator[Case]:
    def out(packet: Packet, *, may_be_cut: bool) -> Outcome:
        there = passed(with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC), "DEVICE")
        return replace(there, tunnel=underlay.node_two, may_be_cut=may_be_cut)

    packet = Ether(src=GATEWAY_MAC, dst=GATEWAY_MAC) / family.ip(family.gateway, family.pod_far)
    packet = Ether(bytes(packet / Raw(bytes(1000))))
    tiny, narrow = narrowed(underlay, TINY), narrowed(underlay, NARROW)
    yield Case("a tiny path", packet, out(packet, may_be_cut=family is not IPV4), tiny)
    yield Case("a narrow path", packet, out(packet, may_be_cut=False), narrow)


@in_all_families(of_the_stack)
def test_the_stack_s_packets_are_cut_outside_only_where_ipv6_needs_it(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "to_overlay", underlay, case)


def test_a_path_in_use_costs_no_lookup_of_its_mtu(own_dataplanes: Dataplanes) -> None:
    """What fits a next hop leaves by it, whatever the other table says."""
    dataplane = own_dataplanes[IPV4.name]
    dataplane.fill(replace(known(IPV4), path_mtus={IPV4.node_two: 68}))
    dataplane.arrive_from(None)

    outcome = dataplane.run("from_container", IPV4.from_pod_one(IPV4.pod_far))

    assert outcome.path == "NODE"
