# SPDX-License-Identifier: Apache-2.0
"""Which interface and address setup takes on real hosts, and what it does with each interface."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from loader import tcx
from pycni.kernel import sysctl
from pycni.lab.cluster import Lab
from pycni.lab.layout import NODE_UPLINK, LabNode
from support.labs import prepared_lab, pycni, setup, teardown, within, write_settings
from support.snapshot import differences, take
from support.waiting import wait_until
from support.ways_out import (
    ROUTER,
    ROUTER6,
    SECOND,
    forget_default_routes,
    ip,
    restore_default_routes,
    second_net,
)

OTHER_ROUTER = "198.18.0.253"
TUN = "tun0"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A host with two interfaces, that each test sets up its own way."""
    with prepared_lab(nodes=1) as made, second_net(made.layout, made.layout.nodes[0]):
        yield made


@pytest.fixture
def node(lab: Lab) -> Iterator[LabNode]:
    (node,) = lab.layout.nodes
    before = node.settings_path.read_text()
    yield node
    teardown(node)
    node.settings_path.write_text(before)
    ip(node.netns, f"link set {SECOND} mtu 1500")
    restore_default_routes(node)


def record(node: LabNode) -> dict[str, Any]:
    document = json.loads((node.directory / "state" / "node.json").read_bytes())
    assert isinstance(document, dict)
    return document


def place(node: LabNode) -> tuple[str, str, int]:
    """Uplink, VTEP and MTU of the overlay after a setup."""
    setup(node)
    found = record(node)
    return found["uplink"], found["vtep"], found["mtu"]


def has_program(node: LabNode, ifname: str) -> bool:
    return within(node.netns, lambda: "from_underlay" in tcx.attached(_index(ifname)))


def forwards(node: LabNode, ifname: str) -> bool:
    return within(node.netns, lambda: sysctl.read(f"net/ipv4/conf/{ifname}/forwarding")) == "1"


def _index(ifname: str) -> int:
    return socket.if_nametoindex(ifname)


def default_routes(node: LabNode, *routes: str) -> None:
    forget_default_routes(node)
    for route in routes:
        ip(node.netns, route)


FIRST_LINK = (NODE_UPLINK, "198.18.0.1", 1450)
SECOND_LINK = (SECOND, "198.18.7.1", 1450)
BY_FIRST = f"via {ROUTER} dev {NODE_UPLINK}"
BY_SECOND = f"via 198.18.7.254 dev {SECOND}"


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([f"route add default nexthop {BY_FIRST} nexthop {BY_SECOND}"], FIRST_LINK),
        ([f"route add default nexthop {BY_SECOND} nexthop {BY_FIRST}"], SECOND_LINK),
        (
            [
                f"route add default nexthop {BY_FIRST} "
                f"nexthop via {OTHER_ROUTER} dev {NODE_UPLINK} weight 3"
            ],
            FIRST_LINK,
        ),
        (
            [
                f"route add default {BY_SECOND} metric 500",
                f"route add default {BY_FIRST} metric 100",
            ],
            FIRST_LINK,
        ),
        (
            [
                f"route add default {BY_FIRST} metric 500",
                f"route add default {BY_SECOND} metric 100",
            ],
            SECOND_LINK,
        ),
        (
            [f"-6 route add default via {ROUTER6} dev {NODE_UPLINK}"],
            FIRST_LINK,
        ),
        (
            [
                "route add unreachable default metric 4278198272",
                f"-6 route add default nexthop via fd00:7::fe dev {SECOND} "
                f"nexthop via {ROUTER6} dev {NODE_UPLINK}",
            ],
            SECOND_LINK,
        ),
        ([f"route add default via inet6 fe80::9 dev {SECOND}"], SECOND_LINK),
    ],
    ids=[
        "several next hops",
        "several next hops, the other order",
        "two routers on one link",
        "two metrics",
        "two metrics, the other order",
        "IPv6 only",
        "several next hops in IPv6, IPv4 unreachable",
        "an IPv6 gateway for IPv4",
    ],
)
def test_the_uplink_is_that_of_the_route_the_kernel_takes(
    node: LabNode, routes: list[str], expected: tuple[str, str, int]
) -> None:
    default_routes(node, *routes)

    assert place(node) == expected


@pytest.mark.parametrize("compatible", ["1", "0"], ids=["ways in routes", "numbers in routes"])
@pytest.mark.parametrize("number", [1, 9], ids=["an object", "a group"])
def test_next_hop_objects_are_followed(node: LabNode, number: int, compatible: str) -> None:
    """The kernel may say the ways of an object in each route, or only its number."""
    within(node.netns, lambda: sysctl.write("net/ipv4/nexthop_compat_mode", compatible))
    try:
        default_routes(
            node,
            f"nexthop add id 1 {BY_SECOND}",
            f"nexthop add id 2 {BY_FIRST}",
            "nexthop add id 9 group 1/2",
            f"route add default nhid {number}",
        )

        assert place(node) == SECOND_LINK
    finally:
        within(node.netns, lambda: sysctl.write("net/ipv4/nexthop_compat_mode", "1"))


def test_a_next_hop_without_a_carrier_is_passed_over(lab: Lab, node: LabNode) -> None:
    default_routes(node, f"route add default nexthop {BY_SECOND} nexthop {BY_FIRST}")
    ip(lab.layout.underlay_netns, "link set second7 down")
    try:
        assert place(node) == FIRST_LINK
    finally:
        ip(lab.layout.underlay_netns, "link set second7 up")


def test_a_node_without_any_default_route_needs_to_be_told(node: LabNode) -> None:
    default_routes(node)

    refused = pycni(node, "setup")
    assert refused.returncode == 1
    assert b"no default route" in refused.stderr
    write_settings(node, uplink=SECOND)

    assert place(node) == SECOND_LINK


@pytest.mark.parametrize("bad", ["192.0.2.77/32", "169.254.9.9/16"])
def test_a_virtual_or_link_local_address_is_no_vtep_while_another_is_there(
    node: LabNode, bad: str
) -> None:
    own = "198.18.0.1/24"
    ip(node.netns, f"addr del {own} dev {NODE_UPLINK}")
    ip(node.netns, f"addr add {bad} dev {NODE_UPLINK}")
    ip(node.netns, f"addr add {own} dev {NODE_UPLINK}")
    restore_default_routes(node)
    try:
        assert place(node) == FIRST_LINK
    finally:
        ip(node.netns, f"addr del {bad} dev {NODE_UPLINK}")


def test_a_duplicate_address_is_no_vtep(lab: Lab, node: LabNode) -> None:
    """Another machine of the link answers that it has the address."""
    default_routes(node, f"-6 route add default via {ROUTER6} dev {NODE_UPLINK}")
    ip(node.netns, f"addr del 198.18.0.1/24 dev {NODE_UPLINK}")
    ip(node.netns, f"addr del fd00:99::1/64 dev {NODE_UPLINK}")
    ip(lab.layout.underlay_netns, "addr add fd00:99::99/64 dev br0 nodad")
    ip(node.netns, f"addr add fd00:99::99/64 dev {NODE_UPLINK}")
    ip(node.netns, f"addr add fd00:99::1/64 dev {NODE_UPLINK} nodad")
    try:
        wait_until(lambda: "dadfailed" in ip(node.netns, "-6 addr show"), "the duplicate is found")

        assert place(node)[:2] == (NODE_UPLINK, "fd00:99::1")
        write_settings(node, vtep="fd00:99::99")
        refused = pycni(node, "setup")
        assert b"taken by another machine" in refused.stderr
    finally:
        ip(lab.layout.underlay_netns, "addr del fd00:99::99/64 dev br0")
        ip(node.netns, f"addr del fd00:99::99/64 dev {NODE_UPLINK}")
        ip(node.netns, f"addr add 198.18.0.1/24 dev {NODE_UPLINK}")


def test_the_address_that_others_know_stays_while_it_is_there(node: LabNode) -> None:
    """A better route, and a better address, are no reason to move."""
    assert place(node) == FIRST_LINK
    ip(node.netns, f"route replace default {BY_SECOND}")

    assert place(node) == FIRST_LINK


def test_the_mtu_is_that_of_the_narrowest_way_to_the_others(node: LabNode) -> None:
    ip(node.netns, "addr add 198.51.100.1/32 dev lo")
    ip(node.netns, f"link set {SECOND} mtu 1400")
    default_routes(node, f"route add default nexthop {BY_FIRST} nexthop {BY_SECOND}")
    write_settings(node, vtep="198.51.100.1")
    try:
        assert place(node) == (NODE_UPLINK, "198.51.100.1", 1350)
        write_settings(node, uplink=SECOND)
        assert place(node) == (SECOND, "198.51.100.1", 1350)
    finally:
        ip(node.netns, "addr del 198.51.100.1/32 dev lo")


def test_each_interface_forwards_and_is_guarded_and_teardown_restores_it(node: LabNode) -> None:
    before = take(node)

    setup(node)

    assert [has_program(node, one) for one in (NODE_UPLINK, SECOND, "lo")] == [True, True, False]
    assert [forwards(node, one) for one in (NODE_UPLINK, SECOND, "lo")] == [True, True, False]
    teardown(node)
    found = differences(before, take(node), without=("neighbours",))
    assert [line for line in found if "files: state" not in line] == []


def test_an_interface_that_becomes_a_port_is_left_to_its_bridge(node: LabNode) -> None:
    setup(node)
    ip(node.netns, "link add lan0 type bridge")
    try:
        ip(node.netns, "addr add 198.18.8.1/24 dev lan0")
        ip(node.netns, "link set lan0 up")
        ip(node.netns, f"link set {SECOND} master lan0")

        setup(node)

        assert (has_program(node, "lan0"), has_program(node, SECOND)) == (True, False)
        assert forwards(node, "lan0")
    finally:
        ip(node.netns, "link del lan0")


@contextmanager
def tunnel(node: LabNode) -> Iterator[None]:
    """A layer-3 interface: packets have no Ethernet header."""
    ip(node.netns, f"tuntap add dev {TUN} mode tun")
    try:
        ip(node.netns, f"link set {TUN} mtu 1420 up")
        ip(node.netns, f"addr add 192.0.2.1/24 dev {TUN}")
        yield
    finally:
        ip(node.netns, f"tuntap del dev {TUN} mode tun")


def test_a_layer_3_uplink_forwards_and_has_no_program_that_reads_ethernet(node: LabNode) -> None:
    write_settings(node, uplink=TUN)
    with tunnel(node):
        assert place(node) == (TUN, "192.0.2.1", 1370)

        assert (has_program(node, TUN), forwards(node, TUN)) == (False, True)
        teardown(node)


def test_a_macvlan_uplink_is_one_like_others(node: LabNode) -> None:
    ip(node.netns, f"link add link {SECOND} name mac0 type macvlan mode bridge")
    try:
        ip(node.netns, "addr add 198.18.7.9/24 dev mac0")
        ip(node.netns, "link set mac0 up")
        write_settings(node, uplink="mac0")

        assert place(node) == ("mac0", "198.18.7.9", 1450)
        assert has_program(node, "mac0")
        teardown(node)
    finally:
        ip(node.netns, "link del mac0")
