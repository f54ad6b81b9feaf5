# SPDX-License-Identifier: Apache-2.0
"""Between nodes without outer headers, by routers that know where pods are (`config.routed`).

Node two is behind a router, node three is on the link.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from bpf.cases import Case, Dataplanes, check, in_all_families, in_vxlan
from bpf.dataplane import Dataplane
from bpf.outcomes import directly, dropped, to_neighbour, with_macs
from bpf.test_direct import HERE, OTHER_LINK, OWN_MAC, arriving, in_pod_two, tables
from bpf.world import (
    FAMILIES,
    FOREIGN_MAC,
    IPV4,
    NO_NEIGHBOUR,
    NODE_THREE_MAC,
    NODE_TWO_MAC,
    POD_TWO_MAC,
    ROUTER_MAC,
    UPLINK_IFINDEX,
    UPLINK_MAC,
    Family,
    Fib,
    Tables,
)
from loader.compile import Objects

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def routed_dataplanes(recorded: Objects) -> Iterator[Dataplanes]:
    with ExitStack() as stack:
        yield {
            underlay.name: stack.enter_context(
                Dataplane(recorded, underlay, direct=b"\1", routed=b"\1")
            )
            for underlay in FAMILIES
        }


def behind_router(underlay: Family, ifindex: int, **changes: object) -> Tables:
    hop = {"dst_mac": ROUTER_MAC, "on_link": False} | changes
    return tables(underlay, ifindex, **hop)


def taken(family: Family, underlay: Family) -> Iterator[Case]:
    known = behind_router(underlay, HERE)
    packet = arriving(family, family.pod_far, family.pod_two, eth_src=ROUTER_MAC)
    yield Case("of a pod, from its router", packet, in_pod_two(packet), known)
    older = behind_router(underlay, HERE, direct=False)
    yield Case("before that node gets any", packet, in_pod_two(packet), older)
    forgotten = behind_router(underlay, HERE, unresolved=True)
    asked = Fib(NO_NEIGHBOUR)
    yield Case("from the last MAC", packet, in_pod_two(packet), forgotten, fib=asked)
    kernels = Fib(0, HERE, ROUTER_MAC, UPLINK_MAC, gateway=underlay.stranger)
    yield Case("by the kernel's table", packet, in_pod_two(packet), fib=kernels)
    packet = arriving(family, family.seconds[1], family.pod_two, eth_src=ROUTER_MAC)
    yield Case("of the node", packet, in_pod_two(packet), known)
    packet = arriving(family, family.pod_third, family.pod_two, eth_src=NODE_THREE_MAC)
    yield Case("from a node on the link", packet, in_pod_two(packet), known)


def refused(family: Family, underlay: Family) -> Iterator[Case]:
    known = behind_router(underlay, HERE)
    for what, mac in {
        "a stranger's MAC": FOREIGN_MAC,
        "a MAC of a node on the link": NODE_THREE_MAC,
        "the node's own MAC": NODE_TWO_MAC,
    }.items():
        packet = arriving(family, family.pod_far, family.pod_two, eth_src=mac)
        yield Case(what, packet, dropped("WRONG_NEIGHBOUR", packet), known)
    packet = arriving(family, family.pod_third, family.pod_two, eth_src=ROUTER_MAC)
    wrong = dropped("WRONG_NEIGHBOUR", packet)
    yield Case("the router, of a node on the link", packet, wrong, known)
    packet = arriving(family, family.pod_far, family.pod_two, eth_src=ROUTER_MAC)
    elsewhere = behind_router(underlay, OTHER_LINK)
    yield Case("another link", packet, dropped("WRONG_NEIGHBOUR", packet), elsewhere)
    unknown = behind_router(underlay, HERE, dst_mac=OWN_MAC, unresolved=True)
    nobody = arriving(family, family.pod_far, family.pod_two, eth_src=OWN_MAC)
    yield Case("no MAC", nobody, dropped("WRONG_NEIGHBOUR", nobody), unknown)
    for what, source in {"own": family.pod_one, "nobody's": family.nobody}.items():
        packet = arriving(family, source, family.pod_two, eth_src=ROUTER_MAC)
        yield Case(f"the router, {what}", packet, dropped("SPOOFED_INNER", packet), known)


def sent(family: Family, underlay: Family) -> Iterator[Case]:
    packet = family.from_pod_one(family.pod_far)
    there = directly(with_macs(packet, src=UPLINK_MAC, dst=ROUTER_MAC))
    yield Case("to the router", packet, there, behind_router(underlay, UPLINK_IFINDEX))
    older = behind_router(underlay, UPLINK_IFINDEX, direct=False)
    yield Case("to a node that takes none of routers", packet, in_vxlan(underlay, packet), older)
    inside = in_vxlan(underlay, packet, may_be_cut=True)
    forgotten = behind_router(underlay, UPLINK_IFINDEX, unresolved=True)
    now = Fib(0, OTHER_LINK, FOREIGN_MAC, POD_TWO_MAC, gateway=underlay.stranger)
    moved = directly(with_macs(packet, src=POD_TWO_MAC, dst=FOREIGN_MAC), OTHER_LINK)
    yield Case("to another router by now", packet, moved, forgotten, fib=now)
    asked = to_neighbour(underlay.stranger, packet, OTHER_LINK)
    if family is not IPV4 and underlay is IPV4:
        asked = inside  # the helper finds no IPv4 neighbour for IPv6
    unknown = replace(now, result=NO_NEIGHBOUR)
    yield Case("to a router without a MAC", packet, asked, forgotten, fib=unknown)
    yield Case("without a route", packet, inside, forgotten)
    near = tables(underlay, UPLINK_IFINDEX, unresolved=True)
    yield Case("a node that was on the link", packet, inside, near, fib=now)
    for what, to in {"asked for": family.nobody, "of a node": family.seconds[1]}.items():
        known = behind_router(underlay, UPLINK_IFINDEX)
        published = {**known.remotes, f"{family.nobody}/{family.bits}": underlay.node_two}
        further = family.from_pod_one(to)
        cut = in_vxlan(underlay, further, may_be_cut=True)
        yield Case(f"to a further address, {what}", further, cut, replace(known, remotes=published))
    if family is underlay:
        packet = family.from_pod_one(underlay.node_two)
        there = directly(with_macs(packet, src=UPLINK_MAC, dst=ROUTER_MAC))
        yield Case("to the node", packet, there, behind_router(underlay, UPLINK_IFINDEX))


def from_elsewhere(family: Family, underlay: Family) -> Iterator[Case]:
    """A pod of this node has an address that the router does not know."""
    packet = family.from_pod_one(family.pod_far, src=family.nobody)
    known = behind_router(underlay, UPLINK_IFINDEX)
    asked_for = {**known.endpoints, family.nobody: known.endpoints[family.pod_one]}
    cut = in_vxlan(underlay, packet, may_be_cut=True)
    yield Case("to a pod", packet, cut, replace(known, endpoints=asked_for))


@in_all_families(taken)
def test_the_router_to_a_node_brings_what_is_that_nodes(
    routed_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(routed_dataplanes, "from_underlay", underlay, case)


@in_all_families(refused)
def test_nobody_else_is_believed(
    routed_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(routed_dataplanes, "from_underlay", underlay, case)


@in_all_families(sent)
def test_packets_leave_for_the_router(
    routed_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(routed_dataplanes, "from_container", underlay, case)


@in_all_families(from_elsewhere)
def test_what_routers_do_not_know_leaves_in_vxlan(
    routed_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(routed_dataplanes, "from_container", underlay, case)
