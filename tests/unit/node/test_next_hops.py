# SPDX-License-Identifier: Apache-2.0
"""Next hops out of the kernel's tables: deciding, without a kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.cluster import IPAddress
from pycni.dataplane.maps import NextHop, Vtep
from pycni.kernel.fib import (
    NeighbourChange,
    Neighbours,
    OtherChange,
    Path,
)
from pycni.kernel.links import IFF_RUNNING, IFF_UP, Link
from pycni.node import next_hops, overlay
from pycni.node.direct import NO_MAC
from pycni.node.modes import Mode
from pycni.node.next_hops import Copy, wanted

UPLINK = Link(2, IFF_UP | IFF_RUNNING, mac="02:00:00:00:00:02", mtu=1500)
OVERLAY = Link(5, IFF_UP | IFF_RUNNING, mac="02:00:00:00:00:05", mtu=1450)
TUNNEL = 768
"""ARPHRD_TUNNEL, linux/if_arp.h."""
NODE = ip_address("192.0.2.7")
FAR = ip_address("198.51.100.7")
FAR6 = ip_address("2001:db8::7")
GATEWAY = ip_address("192.0.2.1")
NODE_MAC = "02:00:00:00:07:07"
GATEWAY_MAC = "02:00:00:00:00:fe"
NEIGHBOURS = {(2, NODE): NODE_MAC, (2, GATEWAY): GATEWAY_MAC}


def test_a_node_on_the_link_is_its_own_next_hop() -> None:
    found = wanted({NODE: Path(2, NODE, 0)}, {2: UPLINK}, NEIGHBOURS)

    assert found == {NODE: NextHop(2, 1450, NODE_MAC, UPLINK.mac, on_link=True)}


def directly(neighbours: Neighbours, former: Mapping[IPAddress, NextHop]) -> NextHop:
    """The next hop to NODE, which takes packets without outer headers."""
    return wanted(
        {NODE: Path(2, NODE, 0)}, {2: UPLINK}, neighbours, modes={NODE: Mode.DIRECT}, former=former
    )[NODE]


DIRECT = NextHop(2, 1500, NODE_MAC, UPLINK.mac, on_link=True, direct=True)


def test_a_node_that_gets_no_outer_headers_gets_longer_packets() -> None:
    assert directly(NEIGHBOURS, {}) == DIRECT


def test_a_node_whose_neighbour_is_not_known_keeps_its_last_mac() -> None:
    assert directly({}, {NODE: DIRECT}) == replace(DIRECT, unresolved=True)


@pytest.mark.parametrize(
    "former",
    [None, replace(DIRECT, ifindex=3), replace(DIRECT, dst_mac=GATEWAY_MAC, on_link=False)],
)
def test_a_mac_of_another_link_or_of_a_router_is_no_nodes(former: NextHop | None) -> None:
    found = directly({}, {} if former is None else {NODE: former})

    assert found == replace(DIRECT, dst_mac=NO_MAC, unresolved=True)


def test_a_node_on_no_link_with_this_one_gets_outer_headers() -> None:
    copy = copied()[1]
    copy.take_nodes({FAR: Mode.DIRECT})

    assert [hop.direct for hop in copy.wanted.values()] == [False]


def test_a_node_behind_a_router_that_knows_pods_gets_none() -> None:
    copy = copied()[1]
    copy.take_nodes({FAR: Mode.ROUTED})

    (hop,) = copy.wanted.values()
    assert (hop.direct, hop.on_link, hop.dst_mac) == (True, False, GATEWAY_MAC)


@pytest.mark.parametrize("gateway", [NODE, GATEWAY], ids=["on the link", "by a router"])
def test_a_node_that_gets_ipip_has_an_entry_though_its_neighbour_is_not_known(
    gateway: IPAddress,
) -> None:
    paths = {NODE: Path(2, gateway, 0)}
    known = wanted(paths, {2: UPLINK}, NEIGHBOURS, modes={NODE: Mode.IPIP})[NODE]
    unknown = wanted(paths, {2: UPLINK}, {}, modes={NODE: Mode.IPIP})[NODE]

    on_link = gateway == NODE
    expected = NextHop(2, 1480, NEIGHBOURS[2, gateway], UPLINK.mac, on_link=on_link, ipip=True)
    assert known == expected
    assert unknown == replace(expected, dst_mac=NO_MAC, unresolved=True)


def test_only_nodes_that_take_it_get_ipip() -> None:
    copy = copied()[1]
    copy.take_nodes({FAR: Mode.IPIP})
    assert [(hop.ipip, hop.mtu) for hop in copy.wanted.values()] == [(True, 1480)]

    copy.take_nodes({FAR: Mode.VXLAN})

    assert [(hop.ipip, hop.mtu) for hop in copy.wanted.values()] == [(False, 1450)]


def test_all_nodes_behind_a_gateway_have_its_mac() -> None:
    paths = {FAR: Path(2, GATEWAY, 0), FAR6: Path(2, GATEWAY, 0)}

    found = wanted(paths, {2: UPLINK}, NEIGHBOURS)

    assert {hop.dst_mac for hop in found.values()} == {GATEWAY_MAC}
    assert {vtep: hop.mtu for vtep, hop in found.items()} == {FAR: 1450, FAR6: 1430}


def test_a_route_can_be_narrower_than_its_link() -> None:
    (hop,) = wanted({NODE: Path(2, NODE, 1400)}, {2: UPLINK}, NEIGHBOURS).values()

    assert hop.mtu == 1350


def test_a_route_is_no_wider_than_its_link() -> None:
    (hop,) = wanted({NODE: Path(2, NODE, 9000)}, {2: UPLINK}, NEIGHBOURS).values()

    assert hop.mtu == 1450


def test_the_kernel_keeps_what_cannot_be_sent_to() -> None:
    paths = {NODE: Path(2, NODE, 0)}
    down = UPLINK._replace(flags=IFF_UP)
    no_ethernet = UPLINK._replace(hardware=TUNNEL)

    assert wanted(paths, {2: UPLINK}, {}) == {}
    assert wanted(paths, {2: UPLINK}, {(3, NODE): NODE_MAC}) == {}
    assert wanted(paths, {}, NEIGHBOURS) == {}
    assert wanted(paths, {2: down}, NEIGHBOURS) == {}
    assert wanted(paths, {2: no_ethernet}, NEIGHBOURS) == {}


class Kernel:
    """Answers as Fib does, and counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.addresses: list[list[object]] = []
        self.next = GATEWAY
        self.mtu = 0
        self.narrow: set[object] = set()
        self.unreachable = False

    def neighbours(self) -> dict[object, str]:
        return dict(NEIGHBOURS)

    def paths(self, addresses: Iterable[object], _source: object) -> dict[object, Path]:
        self.asked += 1
        self.addresses.append(list(addresses))
        if self.unreachable:
            return {}
        mtus = {address: 1400 if address in self.narrow else self.mtu for address in addresses}
        return {address: Path(2, self.next, mtu) for address, mtu in mtus.items()}

    def links(self, indexes: object) -> dict[int, Link]:
        wanted = set(indexes)  # type: ignore[call-overload]
        assert wanted <= {2, OVERLAY.ifindex}
        return {link.ifindex: link for link in (UPLINK, OVERLAY) if link.ifindex in wanted}


def copied() -> tuple[Kernel, Copy]:
    kernel = Kernel()
    copy = Copy(kernel)
    copy.take_all(NODE, {FAR: Mode.VXLAN})
    return kernel, copy


def test_a_neighbours_change_asks_no_question() -> None:
    kernel, copy = copied()

    matters = copy.take_in([NeighbourChange(2, GATEWAY, NODE_MAC)])

    assert matters
    assert copy.wanted[FAR].dst_mac == NODE_MAC
    assert kernel.asked == 1


def test_a_neighbour_that_is_gone_takes_its_nodes_along() -> None:
    _, copy = copied()

    assert copy.take_in([NeighbourChange(2, GATEWAY, None)])
    assert copy.wanted == {}


def test_a_route_that_changes_is_asked_for() -> None:
    kernel, copy = copied()
    kernel.next = NODE

    assert copy.take_in([OtherChange()])
    assert copy.wanted[FAR].dst_mac == NODE_MAC


def test_what_does_not_concern_the_way_changes_nothing() -> None:
    kernel, copy = copied()
    pods_veth = OtherChange(77)

    assert not copy.take_in([pods_veth, NeighbourChange(2, GATEWAY, GATEWAY_MAC)])
    assert not copy.take_in([NeighbourChange(9, NODE, None)])
    assert kernel.asked == 1


def test_a_path_that_an_error_is_about_is_asked_for_alone() -> None:
    kernel, copy = copied()

    assert not copy.take_again([FAR])
    assert kernel.asked == 2
    kernel.mtu = 1400
    assert copy.take_again([FAR])
    assert copy.wanted[FAR].mtu == 1350


def test_errors_about_other_packets_ask_no_question() -> None:
    kernel, copy = copied()

    assert not copy.take_again([NODE])
    assert not copy.take_again([])
    assert kernel.asked == 1


def test_a_node_that_cannot_be_reached_any_more_has_no_next_hop() -> None:
    kernel, copy = copied()
    kernel.unreachable = True

    assert copy.take_again([FAR])
    assert copy.wanted == {}


def test_a_path_is_compared_with_the_overlay_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "ifindex", lambda: OVERLAY.ifindex)
    kernel, copy = copied()

    assert copy.narrow == {}
    kernel.mtu = 1400
    assert copy.take_again([FAR])
    assert copy.narrow == {FAR: 1350}
    assert copy.take_in([OtherChange(OVERLAY.ifindex)]), "its MTU may be another"


OTHER = ip_address("198.51.100.8")


def test_only_nodes_that_came_are_asked_for() -> None:
    kernel, copy = copied()

    copy.take_nodes(dict.fromkeys([FAR, OTHER], Mode.VXLAN))
    assert (set(copy.wanted), kernel.addresses) == ({FAR, OTHER}, [[FAR], [OTHER]])

    copy.take_nodes({OTHER: Mode.VXLAN})
    assert (set(copy.wanted), kernel.asked) == ({OTHER}, 2)


def test_a_node_that_could_not_be_reached_has_its_turn_again() -> None:
    kernel, copy = copied()
    kernel.unreachable = True
    copy.take_nodes(dict.fromkeys([FAR, OTHER], Mode.VXLAN))
    assert set(copy.wanted) == {FAR}

    kernel.unreachable = False
    assert copy.take_turn()
    assert set(copy.wanted) == {FAR, OTHER}


def test_each_node_has_its_turn_and_narrow_paths_always_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overlay, "ifindex", lambda: OVERLAY.ifindex)
    monkeypatch.setattr(next_hops, "REVIEWED", 2)
    kernel, copy = copied()
    many = [OTHER + number for number in range(5)]
    copy.take_all(NODE, dict.fromkeys(many, Mode.VXLAN))
    kernel.narrow = {many[4]}
    copy.take_again([many[4]])
    kernel.addresses.clear()

    assert not any(copy.take_turn() for _ in range(4))

    assert [set(asked) for asked in kernel.addresses] == [
        {many[0], many[1], many[4]},
        {many[2], many[3], many[4]},
        {many[4]},
        {many[0], many[1], many[4]},
    ]
    kernel.narrow = set()
    assert copy.take_turn()
    assert copy.narrow == {}


def test_addresses_that_the_store_has_are_not_held_twice() -> None:
    entries = {ip_address(str(FAR)): Vtep(7), ip_address("192.0.2.99"): Vtep(8)}
    vteps = SimpleNamespace(stream=lambda: iter(entries.items()))
    node = SimpleNamespace(direct=False, routed=False, ipip=False)

    known: Any = SimpleNamespace(vtep=FAR)

    found = next_hops._others(vteps, node, [known])

    assert list(found) == list(entries)
    assert next(iter(found)) is FAR
