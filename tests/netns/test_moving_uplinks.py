# SPDX-License-Identifier: Apache-2.0
"""The agent follows the node's place in the underlay: interfaces, routes, MTU, addresses."""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from pycni.kernel import sysctl
from pycni.kernel.links import End
from pycni.lab import topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, NODE_UPLINK, POD_IFNAME, LabNode
from support.flood import unanswered
from support.flows import answering, ask
from support.labs import made_lab, made_pod, rows, within, write_settings
from support.plugin import execute
from support.underlay import FORWARDING, write_parameters
from support.waiting import wait_until
from support.ways_out import ROUTER, SECOND, ip, restore_default_routes, second_net

ADDRESS, ADDRESS6 = "198.18.0.1/24", "fd00:99::1/64"
ANYCAST = "198.51.100.1"
LOOPBACK = "lo"
BY_FIRST, BY_SECOND = f"via 198.18.0.1 dev {BRIDGE}", "via 198.18.7.1 dev second7"
"""Ways from the router to the first node."""
TUN = "tun0"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
"""linux/if_tun.h"""
SOON = 3.0
"""Seconds for a setup on a busy machine, after an event that is taken up within one."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=1) as made:
        yield made


def record(node: LabNode) -> dict[str, Any]:
    document = json.loads((node.directory / "state" / "node.json").read_bytes())
    assert isinstance(document, dict)
    return document


def reach_each_other(lab: Lab) -> bool:
    one, two = lab.layout.pods
    return not unanswered(lab, one.netns, lab.addresses(two), count=1) and not unanswered(
        lab, two.netns, lab.addresses(one), count=1
    )


def log(node: LabNode) -> str:
    return node.log_path.read_text()


def mtu(netns: str, ifname: str) -> int:
    (link,) = json.loads(ip(netns, f"-json link show dev {ifname}"))
    return int(link["mtu"])


@pytest.mark.parametrize("name", [NODE_UPLINK, "lan0"], ids=["same name", "another name"])
def test_an_uplink_that_is_made_anew_is_the_uplink_again(lab: Lab, name: str) -> None:
    node = lab.layout.nodes[0]
    underlay = lab.layout.underlay_netns
    ip(node.netns, f"link del {NODE_UPLINK}")
    with (topology.NETNS_DIR / node.netns).open() as there:
        plug(underlay, node, name, there.fileno())

    wait_until(lambda: record(node)["uplink"] == name, "it is the uplink")
    wait_until(lambda: reach_each_other(lab), "pods reach each other")
    wait_until(lambda: len(rows(lab, node, "nexthops")) == 1, "by programs")

    hooks = next(row for row in lab.pycni(node, "status") if row["name"] == "hooks")
    assert hooks["state"] == "ok", hooks
    forwarding = within(node.netns, lambda: sysctl.read(f"net/ipv4/conf/{name}/forwarding"))
    assert forwarding == "1"
    assert "the VTEP" not in log(node), "it came back within seconds: no move"


def plug(underlay: str, node: LabNode, name: str, fd: int) -> None:
    with topology.open_rtnl(underlay) as ipr:
        ipr.add_veth(End(node.port), End(name, netns_fd=fd))
        port = ipr.ifindex(node.port)
        ipr.set_master(port, ipr.ifindex(BRIDGE))
        ipr.set_up(port)
    ip(node.netns, f"link set {name} up")
    ip(node.netns, f"addr add {ADDRESS} dev {name}")
    ip(node.netns, f"addr add {ADDRESS6} dev {name} nodad")
    ip(node.netns, f"route add default via {ROUTER} dev {name}")


def test_an_address_that_is_away_for_seconds_is_no_move(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    ip(node.netns, f"addr add 198.18.0.99/24 dev {NODE_UPLINK}")
    within(
        node.netns,
        partial(sysctl.write, f"net/ipv4/conf/{NODE_UPLINK}/promote_secondaries", "1"),
    )

    ip(node.netns, f"addr del {ADDRESS} dev {NODE_UPLINK}")
    time.sleep(2)
    ip(node.netns, f"addr add {ADDRESS} dev {NODE_UPLINK}")
    time.sleep(6)

    assert record(node)["vtep"] == "198.18.0.1"
    assert "setting up again" not in log(node)
    wait_until(lambda: reach_each_other(lab), "pods reach each other")


@pytest.mark.parametrize("wide", [1400, 1600], ids=["lowered", "raised"])
def test_the_mtu_of_the_uplink_is_followed(lab: Lab, wide: int) -> None:
    node = lab.layout.nodes[0]
    wait_until(lambda: reach_each_other(lab), "the nodes know their next hops")

    ip(node.netns, f"link set {NODE_UPLINK} mtu {wide}")

    wait_until(lambda: mtu(node.netns, "pycni0") == wide - 50, "pycni0 follows", seconds=SOON)
    assert record(node)["mtu"] == wide - 50
    wait_until(
        lambda: [hop["mtu"] for hop in rows(lab, node, "nexthops")] == [wide - 50],
        "next hops follow",
    )
    assert reach_each_other(lab)
    with made_pod(lab, node) as pod:
        assert execute(lab, pod, "ADD").status == 0
        assert mtu(pod.netns, POD_IFNAME) == wide - 50
        assert execute(lab, pod, "DEL").status == 0


def test_one_more_interface_is_ready_for_packets_and_leaves_nothing(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    with second_net(lab.layout, node):
        wait_until(
            lambda: (
                within(node.netns, lambda: sysctl.read(f"net/ipv4/conf/{SECOND}/forwarding")) == "1"
            ),
            "it forwards",
            seconds=SOON,
        )
    wait_until(lambda: "fd00:7::1" not in told(lab), "its addresses are no longer told")


def told(lab: Lab) -> set[str]:
    return {str(row["address"]) for row in rows(lab, lab.layout.nodes[1], "nodes")}


@contextmanager
def address_on(holder: str, lab: Lab, node: LabNode) -> Iterator[None]:
    """BGP on the host: its address is on `holder`, and two links lead to it and away from it. A
    pair that leads nowhere stands for a dummy, which not all kernels have."""
    if holder != LOOPBACK:
        ip(node.netns, f"link add {holder} type veth peer name {holder}peer")
        ip(node.netns, f"link set {holder}peer up")
        ip(node.netns, f"link set {holder} up")
    ip(node.netns, f"addr add {ANYCAST}/32 dev {holder}")
    ip(
        node.netns,
        f"route replace default src {ANYCAST} nexthop via {ROUTER} dev {NODE_UPLINK} "
        f"nexthop via 198.18.7.254 dev {SECOND}",
    )
    ip(lab.layout.underlay_netns, f"route add {ANYCAST}/32 nexthop {BY_FIRST} nexthop {BY_SECOND}")
    # packets to the other node leave by the router, too
    ip(node.netns, f"route del 198.18.0.0/24 dev {NODE_UPLINK}")
    ip(node.netns, f"route add {ROUTER}/32 dev {NODE_UPLINK}")
    try:
        yield
    finally:
        ip(lab.layout.underlay_netns, f"route del {ANYCAST}/32")
        restore_default_routes(node)
        if holder != LOOPBACK:
            ip(node.netns, f"link del {holder}")


@pytest.mark.parametrize("holder", [LOOPBACK, "hold7"])
def test_pods_reach_each_other_by_several_ways_and_when_one_is_down(lab: Lab, holder: str) -> None:
    node = lab.layout.nodes[0]
    underlay = lab.layout.underlay_netns
    within(underlay, partial(write_parameters, FORWARDING))  # who is redirected keeps to it
    with second_net(lab.layout, node), address_on(holder, lab, node):
        for ifname in (NODE_UPLINK, SECOND):  # what a link without carrier leads to is no way
            name = f"net/ipv4/conf/{ifname}/ignore_routes_with_linkdown"
            within(node.netns, partial(sysctl.write, name, "1"))
        lab.stop_agent(node)
        write_settings(node, vtep=ANYCAST)
        lab.start_agent(node)
        wait_until(lambda: record(node)["vtep"] == ANYCAST, "the address is the VTEP")
        wait_until(lambda: reach_each_other(lab), "pods reach each other")
        assert mtu(node.netns, "pycni0") == 1450

        for far, left in (("second7", BY_FIRST), (node.port, BY_SECOND)):
            ip(underlay, f"link set {far} down")
            ip(underlay, f"route replace {ANYCAST}/32 {left}")  # as a router learns by BGP
            wait_until(lambda: reach_each_other(lab), f"pods reach each other without {far}")
            ip(underlay, f"link set {far} up")
            ip(underlay, f"route replace {ANYCAST}/32 nexthop {BY_FIRST} nexthop {BY_SECOND}")
            wait_until(lambda: reach_each_other(lab), "and again with it")


def move_to_lan0(lab: Lab, node: LabNode) -> None:
    """The node's addresses are those of lan0 now, and it sends and receives by programs."""
    ip(node.netns, f"addr add {ADDRESS} dev lan0")
    ip(node.netns, f"addr add {ADDRESS6} dev lan0 nodad")
    ip(node.netns, f"route add default via {ROUTER} dev lan0")
    wait_until(lambda: record(node)["uplink"] == "lan0", "lan0 is the uplink")
    wait_until(lambda: reach_each_other(lab), "pods reach each other")
    wait_until(lambda: len(rows(lab, node, "nexthops")) == 1, "by programs")


def test_a_bridge_with_netfilter_is_an_uplink(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    within(node.netns, partial(sysctl.write, "net/bridge/bridge-nf-call-iptables", "1"))
    ip(node.netns, "link add lan0 type bridge")
    ip(node.netns, "link set lan0 up")
    ip(node.netns, f"addr flush dev {NODE_UPLINK}")
    ip(node.netns, f"link set {NODE_UPLINK} master lan0")

    move_to_lan0(lab, node)

    with made_pod(lab, node) as pod:
        mapping = {"hostPort": 18098, "containerPort": 8000, "protocol": "udp"}
        added = execute(lab, pod, "ADD", runtimeConfig={"portMappings": [mapping]})
        assert added.status == 0, added.text
        for at, address in zip((ADDRESS, ADDRESS6), added.addresses, strict=True):
            host = at.partition("/")[0]
            with answering(pod.netns, address, 8000):
                assert ask(lab.layout.nodes[1].netns, host, 18098), f"host port at {host}"
        assert execute(lab, pod, "DEL").status == 0


def test_a_macvlan_is_an_uplink(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    ip(node.netns, f"link add link {NODE_UPLINK} name lan0 type macvlan mode bridge")
    ip(node.netns, "link set lan0 up")
    ip(node.netns, f"addr flush dev {NODE_UPLINK}")

    move_to_lan0(lab, node)


def open_tun() -> int:
    """A layer-3 interface of the namespace, which lives as long as the descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", TUN.encode(), IFF_TUN | IFF_NO_PI))
    return fd


@contextmanager
def tunnel_between(lab: Lab) -> Iterator[None]:
    """What one node sends into TUN comes out of the other's, as with WireGuard."""
    ends = []
    try:
        for number, node in enumerate(lab.layout.nodes, 1):
            ends.append(within(node.netns, open_tun))
            ip(node.netns, f"link set {TUN} mtu 1420 up")
            ip(node.netns, f"addr add 192.0.2.{number}/24 dev {TUN}")
        stop_reader, stop_writer = os.pipe()
        relay = threading.Thread(target=pass_on, args=(*ends, stop_reader))
        relay.start()
        yield
        os.close(stop_writer)
        relay.join()
        os.close(stop_reader)
    finally:
        for end in ends:
            os.close(end)


def pass_on(one: int, other: int, until: int) -> None:
    while True:
        ready, _, _ = select.select([one, other, until], [], [])
        if until in ready:
            return
        for end in ready:
            os.write(other if end == one else one, os.read(end, 65536))


def test_a_layer_3_tunnel_is_an_uplink(lab: Lab) -> None:
    """The kernel builds VXLAN there: no program of ours reads or writes Ethernet headers on it."""
    one, two = lab.layout.pods
    with tunnel_between(lab):
        for node in lab.layout.nodes:
            lab.stop_agent(node)
            write_settings(node, uplink=TUN)
            lab.start_agent(node)
        wait_until(
            lambda: all(record(node)["uplink"] == TUN for node in lab.layout.nodes),
            "the tunnel is the uplink",
        )
        wait_until(lambda: reach_each_other(lab), "pods reach each other")
        assert unanswered(lab, one.netns, lab.addresses(two), size=1300, count=5) == []
        assert unanswered(lab, one.netns, ["192.0.2.2", "198.18.0.2"]) == []
        assert [rows(lab, node, "nexthops") for node in lab.layout.nodes] == [[], []]
        for node in lab.layout.nodes:
            lab.stop_agent(node)
