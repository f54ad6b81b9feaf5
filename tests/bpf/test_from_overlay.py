# SPDX-License-Identifier: Apache-2.0
"""from_overlay: what other nodes may send, and what the stack gets from pods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EINVAL, ENOENT, EPROTO

import pytest
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.dataplane import Dataplane
from bpf.outcomes import dropped, into_pod, out_of_veth, passed, with_macs
from bpf.world import (
    BROADCAST_MAC,
    EMPTY,
    FOREIGN_MAC,
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    PAYLOAD,
    POD_ONE_MAC,
    POD_TWO_MAC,
    VETH_ONE,
    VETH_TWO,
    VNI,
    Family,
    Tables,
    cluster,
    second_addresses,
)

pytestmark = pytest.mark.root


def inner(family: Family, src: str, dst: str, *, eth_dst: str = GATEWAY_MAC) -> Packet:
    return Ether(src=OVERLAY_MAC, dst=eth_dst) / family.ip(src, dst) / PAYLOAD


def delivered(packet: Packet, *, to: str = POD_ONE_MAC) -> Packet:
    return with_macs(packet, src=GATEWAY_MAC, dst=to)


def accepted(family: Family, underlay: Family) -> Iterator[Case]:
    two = underlay.node_two
    packet = inner(family, family.pod_far, family.pod_one)
    yield Case("pod to pod", packet, into_pod(VETH_ONE, delivered(packet)), came_from=two)
    packet = inner(family, family.pod_far, family.pod_two)
    there = into_pod(VETH_TWO, delivered(packet, to=POD_TWO_MAC))
    yield Case("pod to another pod", packet, there, came_from=two)
    packet = inner(family, family.pod_third, family.pod_one)
    there = into_pod(VETH_ONE, delivered(packet))
    yield Case("pod of node three", packet, there, came_from=underlay.node_three)
    packet = inner(family, family.far_gateway, family.pod_one)
    yield Case("host to pod", packet, into_pod(VETH_ONE, delivered(packet)), came_from=two)
    packet = inner(family, family.pod_far, family.gateway)
    yield Case("pod to our gateway", packet, passed(packet, "STACK"), came_from=two)
    packet = inner(family, family.pod_far, family.pod_one, eth_dst=FOREIGN_MAC)
    there = into_pod(VETH_ONE, delivered(packet))
    yield Case("any inner MAC", packet, there, came_from=two)
    if family is underlay:
        packet = inner(family, family.node_two, family.pod_one)
        there = into_pod(VETH_ONE, delivered(packet))
        yield Case("a node speaks for itself", packet, there, came_from=two)
        packet = inner(family, family.pod_far, family.node_one)
        yield Case("pod to our node", packet, passed(packet, "STACK"), came_from=two)
    several = second_addresses(underlay)
    own, second, _ = family.seconds
    packet = inner(family, second, family.pod_one)
    there = into_pod(VETH_ONE, delivered(packet))
    yield Case("a node by another address", packet, there, several, came_from=two)
    packet = inner(family, family.pod_far, own)
    there = passed(packet, "STACK")
    yield Case("pod to our node at another address", packet, there, several, came_from=two)
    packet = inner(family, second, own)
    yield Case("node to node, both at others", packet, passed(packet, "STACK"), several, two)
    if family is not IPV4:
        ip6 = IPv6(src=family.pod_far, dst=family.pod_one)
        packet = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC) / ip6 / IPv6ExtHdrFragment(offset=3)
        yield Case("later fragment", packet, into_pod(VETH_ONE, delivered(packet)), came_from=two)


def to_shaped_pods(family: Family, underlay: Family) -> Iterator[Case]:
    shaped, two = cluster(underlay, shaped=True), underlay.node_two
    packet = inner(family, family.pod_far, family.pod_one)
    there = out_of_veth(VETH_ONE, packet)
    yield Case("pod to pod", packet, there, shaped, came_from=two)


def refused(family: Family, underlay: Family) -> Iterator[Case]:
    two = underlay.node_two
    good = inner(family, family.pod_far, family.pod_one)
    unknown = dropped("UNKNOWN_VTEP", good)
    yield Case("unknown VTEP", good, unknown, came_from=underlay.stranger)
    yield Case("VTEP of a node that left", good, unknown, EMPTY, came_from=two)
    yield Case(
        "VNI of another overlay", good, dropped("WRONG_VNI", good), came_from=two, vni=VNI + 1
    )
    yield Case("VNI zero", good, dropped("WRONG_VNI", good), came_from=two, vni=0)
    three = underlay.node_three
    yield Case("pod of another node", good, dropped("SPOOFED_INNER", good), came_from=three)
    no_pods = Tables(cluster(underlay).endpoints, {}, cluster(underlay).vteps)
    spoofed = dropped("SPOOFED_INNER", good)
    yield Case("a node without pods", good, spoofed, no_pods, came_from=two)
    for name, src in (
        ("our own pod", family.pod_two),
        ("our gateway", family.gateway),
        ("our node", family.node_one),
        ("another node", family.node_three),
        ("the world", family.world),
    ):
        packet = inner(family, src, family.pod_one)
        yield Case(f"source is {name}", packet, dropped("SPOOFED_INNER", packet), came_from=two)
    for name, dst in (
        ("a pod of its own", family.pod_far),
        ("a pod of node three", family.pod_third),
        ("nobody", family.nobody),
        ("the world", family.world),
    ):
        packet = inner(family, family.pod_far, dst)
        nobody = dropped("UNKNOWN_DESTINATION", packet)
        yield Case(f"destination is {name}", packet, nobody, came_from=two)
    several = second_addresses(underlay)
    own, second, third = family.seconds
    for name, src in (("node three", third), ("our node", own)):
        packet = inner(family, src, family.pod_one)
        spoofed = dropped("SPOOFED_INNER", packet)
        yield Case(f"another address of {name}", packet, spoofed, several, came_from=two)
    for name, dst in (("node three", third), ("its own node", second)):
        packet = inner(family, family.pod_far, dst)
        nobody = dropped("UNKNOWN_DESTINATION", packet)
        yield Case(f"to another address of {name}", packet, nobody, several, came_from=two)
    packet = inner(family, second, family.pod_one)
    spoofed = dropped("SPOOFED_INNER", packet)
    yield Case("an address that is the node's no more", packet, spoofed, came_from=two)
    packet = inner(family, family.pod_far, family.group)
    yield Case("multicast", packet, dropped("MULTICAST", packet), came_from=two)
    packet = inner(family, family.pod_far, family.pod_one, eth_dst=BROADCAST_MAC)
    yield Case("unicast in a broadcast frame", packet, dropped("MULTICAST", packet), came_from=two)
    packet = Ether(src=OVERLAY_MAC, dst=BROADCAST_MAC) / ARP(pdst=IPV4.pod_one)
    yield Case("ARP", packet, dropped("UNKNOWN_L3", packet), came_from=two)
    if family is not IPV4:
        mapped = IPv6(src=f"::ffff:{IPV4.pod_far}", dst=family.pod_one)
        packet = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC) / mapped / PAYLOAD
        yield Case(
            "source that passes for IPv4", packet, dropped("BAD_HEADER", packet), came_from=two
        )


def without_metadata(family: Family, _underlay: Family) -> Iterator[Case]:
    for name, dst in (("the world", family.world), ("the gateway", family.gateway)):
        packet = family.from_pod_one(dst)
        yield Case(f"pod to {name}", packet, passed(packet, None))


@in_all_families(accepted)
def test_a_node_may_send(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_overlay", underlay, case)


@in_all_families(to_shaped_pods)
def test_shaped_pods_are_reached_through_their_host_veth(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_overlay", underlay, case)


@in_all_families(refused)
def test_a_node_may_not_send(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_overlay", underlay, case)


@in_all_families(without_metadata)
def test_what_pods_send_to_the_stack_passes(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_overlay", underlay, case)


@pytest.mark.parametrize("error", [ENOENT, EPROTO], ids=["ENOENT", "EPROTO"])
@pytest.mark.parametrize("program", ["from_overlay", "to_overlay"])
def test_only_one_error_means_that_there_is_no_tunnel(
    dataplane: Dataplane, family: Family, program: str, error: int
) -> None:
    packet = family.from_pod_one(family.gateway)
    dataplane.arrive_unreadable(error)

    outcome = dataplane.run(program, packet)

    assert outcome == dropped("BAD_TUNNEL", packet)


def test_that_error_is_einval(dataplane: Dataplane, family: Family) -> None:
    packet = family.from_pod_one(family.gateway)
    dataplane.arrive_unreadable(EINVAL)

    assert dataplane.run("from_overlay", packet) == passed(packet, None)


def test_vxlan_is_taken_at_the_vtep_only(dataplanes: Dataplanes, family: Family) -> None:
    for dataplane in dataplanes.values():
        underlay = dataplane.underlay
        dataplane.fill(cluster(underlay))
        packet = inner(family, family.pod_far, family.pod_one)
        dataplane.arrive_from(underlay.node_two, to=underlay.stranger)

        outcome = dataplane.run("from_overlay", packet)

        assert outcome == dropped("NOT_VTEP", packet)


def test_an_old_kernel_does_not_say_where_vxlan_was_sent_to(
    make_dataplane: Callable[..., Dataplane], family: Family
) -> None:
    dataplane = make_dataplane(IPV4, tunnel_key_local=b"\0")
    dataplane.fill(cluster(IPV4))
    packet = inner(family, family.pod_far, family.pod_one)
    dataplane.arrive_from(IPV4.node_two, to=IPV4.stranger)

    assert dataplane.run("from_overlay", packet) == into_pod(VETH_ONE, delivered(packet))
