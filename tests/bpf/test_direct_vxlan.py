# SPDX-License-Identifier: Apache-2.0
"""VXLAN beside packets without outer headers: a node on the link that gets such packets is known by
its MAC in VXLAN, too, so that a stranger on the link has no other way in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.dataplane import Dataplane
from bpf.outcomes import dropped, into_pod, left_to_others
from bpf.test_direct import HERE, OTHER_LINK, OWN_MAC, tables
from bpf.test_own_decap import built, inner, udp, unwrapped, vxlan
from bpf.world import (
    BROADCAST_MAC,
    FAMILIES,
    FOREIGN_MAC,
    GROUP_MAC,
    IPV4,
    NO_NEIGHBOUR,
    NODE_THREE_MAC,
    NODE_TWO_MAC,
    UPLINK_MAC,
    VETH_ONE,
    VXLAN_PORT,
    Family,
    Fib,
)

pytestmark = pytest.mark.root


def outside(underlay: Family, mac: str) -> Packet:
    """From node two's address to node one's."""
    return Ether(src=mac, dst=OWN_MAC) / underlay.ip(underlay.node_two, underlay.node_one)


def whole(family: Family, underlay: Family, mac: str) -> Packet:
    return built(outside(underlay, mac) / udp() / vxlan() / inner(family))


def refused(family: Family, underlay: Family) -> Iterator[Case]:
    known = tables(underlay, HERE)
    for what, mac in {"a stranger's": FOREIGN_MAC, "another node's": NODE_THREE_MAC}.items():
        packet = whole(family, underlay, mac)
        yield Case(f"{what} MAC", packet, dropped("WRONG_NEIGHBOUR", packet), known)
    packet = whole(family, underlay, NODE_TWO_MAC)
    elsewhere = tables(underlay, OTHER_LINK)
    yield Case("on another link", packet, dropped("WRONG_NEIGHBOUR", packet), elsewhere)
    for what, part in hidden(underlay, FOREIGN_MAC):
        yield Case(what, part, dropped("WRONG_NEIGHBOUR", part), known)
    for what, station in {"everybody": BROADCAST_MAC, "a group of stations": GROUP_MAC}.items():
        parts = whole(family, underlay, FOREIGN_MAC), *dict(hidden(underlay, FOREIGN_MAC)).values()
        for number, part in enumerate(parts):
            part.dst = station
            yield Case(f"to {what}, {number}", part, dropped("WRONG_NEIGHBOUR", part), known)


def hidden(underlay: Family, mac: str) -> Iterator[tuple[str, Packet]]:
    """What the kernel may find VXLAN in, and the programs do not."""
    head = Ether(src=mac, dst=OWN_MAC)
    one, two = underlay.node_one, underlay.node_two
    if underlay is IPV4:
        parts = fragment(head / IP(src=two, dst=one) / UDP() / Raw(bytes(80)), fragsize=48)
        yield "a later fragment", parts[1]
    else:
        yield "a fragment", head / IPv6(src=two, dst=one) / IPv6ExtHdrFragment(m=1) / UDP()
        options = head / IPv6(src=two, dst=one) / IPv6ExtHdrDestOpt() / UDP(dport=VXLAN_PORT)
        yield "behind options", built(options)


def left(family: Family, underlay: Family) -> Iterator[Case]:
    """To the VXLAN device, or to the host's stack where the programs see none."""
    known = tables(underlay, HERE)
    packet = whole(family, underlay, NODE_TWO_MAC)
    yield Case("of the node", packet, left_to_others(packet, "DEVICE"), known)
    for what, part in hidden(underlay, NODE_TWO_MAC):
        yield Case(f"{what} of the node", part, left_to_others(part), known)
    packet = whole(family, underlay, FOREIGN_MAC)
    older = tables(underlay, HERE, direct=False)
    yield Case("a node that takes VXLAN only", packet, left_to_others(packet, "DEVICE"), older)
    unknown = tables(underlay, HERE, dst_mac=OWN_MAC, unresolved=True)
    asked = Fib(NO_NEIGHBOUR)
    yield Case("no MAC yet", packet, left_to_others(packet, "DEVICE"), unknown, fib=asked)
    now = Fib(0, HERE, FOREIGN_MAC, UPLINK_MAC)
    yield Case("another MAC now", packet, left_to_others(packet, "DEVICE"), known, fib=now)
    elsewhere = whole(family, underlay, FOREIGN_MAC)
    elsewhere.dst = NODE_THREE_MAC
    yield Case("to another station", elsewhere, left_to_others(elsewhere, "DEVICE"), known)
    packet = whole(family, underlay, NODE_TWO_MAC)
    packet.dst = BROADCAST_MAC
    yield Case("of the node to everybody", packet, left_to_others(packet, "DEVICE"), known)
    ssh = outside(underlay, FOREIGN_MAC) / UDP(dport=VXLAN_PORT + 1) / Raw(bytes(16))
    yield Case("node to node", built(ssh), left_to_others(built(ssh)), known)


@in_all_families(refused)
def test_vxlan_from_another_mac_than_its_nodes_is_refused(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_underlay", underlay, case)


@in_all_families(left)
def test_vxlan_of_the_node_itself_passes(
    direct_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(direct_dataplanes, "from_underlay", underlay, case)


@pytest.mark.parametrize("underlay", FAMILIES, ids=lambda one: one.name)
def test_the_same_holds_for_own_vxlan(
    make_dataplane: Callable[..., Dataplane], underlay: Family
) -> None:
    dataplane = make_dataplane(underlay, direct=b"\1", own_encap=b"\1")
    dataplane.fill(tables(underlay, HERE))
    inside = inner(underlay)
    right, wrong = (whole(underlay, underlay, mac) for mac in (NODE_TWO_MAC, FOREIGN_MAC))

    taken = dataplane.run("from_underlay", right)
    stopped = dataplane.run("from_underlay", wrong)

    assert taken == into_pod(VETH_ONE, unwrapped(inside))
    assert stopped == dropped("WRONG_NEIGHBOUR", wrong)
