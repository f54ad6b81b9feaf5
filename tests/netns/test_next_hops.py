# SPDX-License-Identifier: Apache-2.0
"""Own encapsulation while the underlay changes: events are followed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Any

import pytest

from pycni.agent import own_address
from pycni.kernel import namespaces, sysctl
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import (
    BRIDGE,
    NODE_UPLINK,
    UNDERLAY4,
    UNDERLAY6,
    LabNode,
)
from pycni.lab.topology import NETNS_DIR
from pycni.node import next_hops
from support.flood import Flood, unanswered
from support.kernel import add_address, open_iproute
from support.labs import made_lab, rows, setup, write_settings
from support.waiting import wait_until

FLOOD = 1500
"""Echo requests, one per millisecond."""
LONG_FLOOD = 4000
"""Longer than a setup takes."""
MOVE_FLOOD = 9000
"""Longer than a node waits for its address to come back."""
RECOVERY_MS = 1000
"""An event mends it: else the agent's promise runs out after 5 s, or it asks again after 30."""
OTHER_MAC = "02:00:5e:00:01:07"
MOVED = IPv4Interface("198.18.0.77/24")
SECOND_LINK = "eth1"
SECOND_NET = (IPv4Interface("198.18.7.1/24"), IPv4Interface("198.18.7.254/24"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=1) as made:
        yield made


@pytest.fixture(autouse=True)
def _fast(lab: Lab) -> None:
    """Both nodes know the way to each other before a test, and after the ones before it."""
    wait_until(lambda: all(learnt(lab, node) for node in lab.layout.nodes), "next hops known")


def vtep(node: LabNode) -> IPv4Address:
    return IPv4Address(str(node.underlay[0].ip))


def hops(lab: Lab, node: LabNode) -> list[dict[str, Any]]:
    return rows(lab, node, "nexthops")


def learnt(lab: Lab, node: LabNode) -> bool:
    """The kernel resolves a neighbour when it first sends to it."""
    source, target = lab.layout.pods
    unanswered(lab, source.netns, lab.addresses(target), count=1)
    return len(hops(lab, node)) == 1


def link_index(netns: str, ifname: str) -> int:
    with open_iproute(netns) as ipr:
        (index,) = ipr.link_lookup(ifname=ifname)
        return int(index)


def set_parameter(netns: str, name: str, value: str) -> None:
    with (NETNS_DIR / netns).open() as entry:
        namespaces.inside(entry.fileno(), lambda: sysctl.write(name, value))


def set_link(netns: str, ifname: str, **changes: Any) -> None:
    with open_iproute(netns) as ipr:
        (index,) = ipr.link_lookup(ifname=ifname)
        ipr.link("set", index=index, **changes)


def mac_of(netns: str, ifname: str) -> str:
    with open_iproute(netns) as ipr:
        (index,) = ipr.link_lookup(ifname=ifname)
        return str(next(iter(ipr.get_links(index))).get("address"))


def change_mac(netns: str, ifname: str, mac: str) -> None:
    """With a gratuitous ARP of the kernel's, as VRRP and every failover sends it."""
    set_parameter(netns, f"net/ipv4/conf/{ifname}/arp_notify", "1")
    set_link(netns, ifname, address=mac)


@contextmanager
def routed(lab: Lab) -> Iterator[None]:
    """Node one reaches node two by its default route, over the underlay's router."""
    node = lab.layout.nodes[0]
    underlay = lab.layout.underlay_netns
    for name in ("conf/all/send_redirects", f"conf/{BRIDGE}/send_redirects"):
        set_parameter(underlay, f"net/ipv4/{name}", "0")
    set_parameter(underlay, "net/ipv4/ip_forward", "1")
    uplink = link_index(node.netns, NODE_UPLINK)
    on_link = {
        "dst": str(UNDERLAY4.network),
        "oif": uplink,
        "scope": 253,
        "proto": 2,
        "prefsrc": str(vtep(node)),
    }
    with open_iproute(node.netns) as ipr:
        ipr.route("replace", dst="default", gateway=str(UNDERLAY4.ip), oif=uplink, flags="onlink")
        ipr.route("del", **on_link)
    try:
        wait_until(lambda: learnt(lab, node) and gateway_is_used(lab, node), "the gateway is used")
        yield
    finally:
        with open_iproute(node.netns) as ipr:
            ipr.route("add", **on_link)


def gateway_is_used(lab: Lab, node: LabNode) -> bool:
    return str(hops(lab, node)[0]["dst_mac"]) == mac_of(lab.layout.underlay_netns, BRIDGE)


def flooded(lab: Lab, change: Callable[[], object], *, count: int = FLOOD) -> int:
    """Echo requests lost, of the worse family, while something changes."""
    source, target = lab.layout.pods
    with Flood(source, lab.addresses(target), count=count) as flood:
        change()
        assert flood.flowing
        return max(flood.lost().values())


def test_a_neighbours_new_mac_is_followed(lab: Lab) -> None:
    node, other = lab.layout.nodes
    before = mac_of(other.netns, NODE_UPLINK)

    def change() -> None:
        change_mac(other.netns, NODE_UPLINK, OTHER_MAC)

    try:
        lost = flooded(lab, change)

        assert lost <= RECOVERY_MS
        assert [hop["dst_mac"] for hop in hops(lab, node)] == [OTHER_MAC]
        assert [hop["src_mac"] for hop in hops(lab, other)] == [OTHER_MAC]
    finally:
        change_mac(other.netns, NODE_UPLINK, before)


def test_a_gateways_new_mac_is_followed(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    underlay = lab.layout.underlay_netns
    before = mac_of(underlay, BRIDGE)

    def change() -> None:
        change_mac(underlay, BRIDGE, OTHER_MAC)

    with routed(lab):
        try:
            lost = flooded(lab, change)

            assert lost <= RECOVERY_MS
            assert [hop["dst_mac"] for hop in hops(lab, node)] == [OTHER_MAC]
        finally:
            change_mac(underlay, BRIDGE, before)


def test_packets_follow_a_default_route_to_another_link(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    with routed(lab), second_link(lab, node) as index:

        def change() -> None:
            with open_iproute(node.netns) as ipr:
                ipr.route("replace", dst="default", gateway=str(SECOND_NET[1].ip), oif=index)

        lost = flooded(lab, change)

        assert lost <= RECOVERY_MS
        assert [hop["ifindex"] for hop in hops(lab, node)] == [index]
    wait_until(lambda: [hop["ifindex"] for hop in hops(lab, node)] != [index], "none is stale")


@contextmanager
def second_link(lab: Lab, node: LabNode) -> Iterator[int]:
    """Another interface of a node, in a network of its own with the underlay's router."""
    with open_iproute(lab.layout.underlay_netns) as router:
        with (NETNS_DIR / node.netns).open() as entry:
            router.link(
                "add",
                ifname="second",
                kind="veth",
                peer={"ifname": SECOND_LINK, "net_ns_fd": entry.fileno()},
            )
        (far,) = router.link_lookup(ifname="second")
        router.link("set", index=far, state="up")
        add_address(router, far, SECOND_NET[1].ip, prefixlen=24)
        with open_iproute(node.netns) as ipr:
            (near,) = ipr.link_lookup(ifname=SECOND_LINK)
            ipr.link("set", index=near, state="up")
            add_address(ipr, near, SECOND_NET[0].ip, prefixlen=24)
        try:
            yield int(near)
        finally:
            router.link("del", index=far)


@pytest.mark.parametrize("side", ["its own end", "the switch's end"])
def test_packets_flow_again_when_the_uplink_is_back(lab: Lab, side: str) -> None:
    node, other = lab.layout.nodes
    own = side == "its own end"
    end = (other.netns, NODE_UPLINK) if own else (lab.layout.underlay_netns, other.port)
    times = []

    def change() -> None:
        for state in ("down", "up"):
            times.append(time.monotonic())
            set_link(*end, state=state)
            times.append(time.monotonic())
            time.sleep(0.2)

    lost = flooded(lab, change)

    down_ms = 1000 * (times[3] - times[0])
    configure_again(other)

    assert lost >= 100, "the link was not down"
    assert lost <= down_ms + RECOVERY_MS
    wait_until(lambda: learnt(lab, node) and learnt(lab, other), "next hops known again")


def configure_again(node: LabNode) -> None:
    """What a network manager does when a link is up: the kernel has forgotten half of it."""
    with open_iproute(node.netns) as ipr:
        (uplink,) = ipr.link_lookup(ifname=NODE_UPLINK)
        held = {message.get("IFA_ADDRESS") for message in ipr.get_addr(index=uplink)}
        for address in node.underlay:
            if str(address.ip) not in held:
                add_address(ipr, uplink, address.ip, prefixlen=address.network.prefixlen)
        for family, router in ((socket.AF_INET, UNDERLAY4.ip), (socket.AF_INET6, UNDERLAY6.ip)):
            ipr.route("replace", dst="default", gateway=str(router), oif=uplink, family=family)


def test_a_node_that_gets_another_address_is_found_there(lab: Lab) -> None:
    node, other = lab.layout.nodes
    before = other.underlay[0]

    def move(to: IPv4Interface | IPv6Interface, away: IPv4Interface | IPv6Interface) -> None:
        with open_iproute(other.netns) as ipr:
            (index,) = ipr.link_lookup(ifname=NODE_UPLINK)
            add_address(ipr, index, to.ip, prefixlen=to.network.prefixlen)
            ipr.addr("del", index=index, address=str(away.ip), prefixlen=away.network.prefixlen)

    set_parameter(other.netns, f"net/ipv4/conf/{NODE_UPLINK}/promote_secondaries", "1")
    try:
        lost = flooded(lab, lambda: move(MOVED, before), count=MOVE_FLOOD)

        assert lost <= RECOVERY_MS + 1000 * own_address.PATIENCE
        assert [row["vtep"] for row in rows(lab, node, "vteps")] == [str(MOVED.ip)]
        assert [hop["vtep"] for hop in hops(lab, node)] == [str(MOVED.ip)]
        assert {row["vtep"] for row in rows(lab, node, "remotes")} == {str(MOVED.ip)}
    finally:
        move(before, MOVED)
        wait_until(lambda: learnt(lab, node) and not moved(lab, node), "the node is back")


def moved(lab: Lab, node: LabNode) -> bool:
    return [hop["vtep"] for hop in hops(lab, node)] == [str(MOVED.ip)]


def test_switching_who_encapsulates_loses_no_packet(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    for mode in ("kernel", "auto"):
        write_settings(node, encap=mode)

        lost = flooded(lab, lambda: setup(node), count=LONG_FLOOD)

        assert lost == 0, mode
        assert encap(lab, node).startswith("kernel" if mode == "kernel" else "ebpf")


def encap(lab: Lab, node: LabNode) -> str:
    """What `pycni status` says of it."""
    return next(str(row["cause"]) for row in lab.pycni(node, "status") if row["name"] == "encap")


def test_without_an_agent_the_kernel_takes_over(lab: Lab) -> None:
    """And so follows what no one tells our programs any more."""
    source, target = lab.layout.pods
    node, other = lab.layout.nodes
    before = mac_of(other.netns, NODE_UPLINK)
    with Flood(source, lab.addresses(target), count=round(1000 * next_hops.LEASE) + 3000) as flood:
        lab.stop_agent(node, kill=True)
        wait_until(lambda: "no agent" in encap(lab, node), "the lease ends")
        assert flood.flowing
        lost = flood.lost()
    try:
        change_mac(other.netns, NODE_UPLINK, OTHER_MAC)
        unreached = unanswered(lab, source.netns, lab.addresses(target))
        stale = [hop["dst_mac"] for hop in hops(lab, node)]
    finally:
        change_mac(other.netns, NODE_UPLINK, before)
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)

    assert lost == dict.fromkeys(lab.addresses(target), 0)
    assert stale == [before]
    assert unreached == []
    wait_until(lambda: "next hops known" in encap(lab, node), "the agent vouches again")
