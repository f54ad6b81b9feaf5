# SPDX-License-Identifier: Apache-2.0
"""Every way between nodes, from every kind of place to every other one.

Nodes one and two are on one link, node three is behind a router. The cluster goes over from mode to
mode. PYCNI_MATRIX=whole does everything (`make test-modes`), otherwise one mode over IPv4.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from pycni.cluster import IPIP_OVERHEAD
from pycni.lab.layout import BRIDGE, POD_IFNAME, WORLD, LabNode
from pycni.node import overlay
from pycni.node.record import Node
from pycni.settings import load
from pycni.stores import DIRECT, IPIP, VXLAN
from support.flows import FAMILIES, answering, ask, pumping
from support.kernel import open_iproute
from support.labs import made_pod, setup, write_settings
from support.matrix import OVERHEAD, exchange_between, plan
from support.on_link import SEND_DIRECTLY, UNDERLAYS, Nodes, nodes_on_link
from support.plugin import execute
from support.underlay import ip

UPLINK_MTU = 1500
HOST_PORT, TARGET_PORT = 18080, 80


@dataclass(frozen=True)
class Mode:
    """Of all nodes."""

    encap: str
    routed: bool = False
    """Whether the router between them knows pods."""

    def __str__(self) -> str:
        return self.encap + (" by routers" if self.routed else "")

    def between(self, source: int, target: int) -> str:
        """How packets leave, between nodes by number; empty: not at all."""
        if source == target:
            return ""
        if self.encap == "ipip":
            return IPIP
        is_near = self.routed or 2 not in (source, target)
        return DIRECT if self.encap in SEND_DIRECTLY and is_near else VXLAN

    def pod_mtu(self, underlay: int) -> int:
        kept = {"direct": 0, "ipip": IPIP_OVERHEAD[underlay]}
        return UPLINK_MTU - kept.get(self.encap, OVERHEAD[underlay])


ALL = [
    Mode("direct"),
    Mode("direct", routed=True),
    Mode("auto-direct"),
    Mode("auto-direct", routed=True),
    Mode("ipip"),
    Mode("auto"),
    Mode("kernel"),
    Mode("ebpf"),
]
MODES = ALL if os.environ.get("PYCNI_MATRIX") == "whole" else ALL[:1]
PLACES = {
    "same node": (0, 0), "other node": (0, 1), "behind a router": (0, 2),
    "from behind a router": (2, 0),
}  # fmt: skip
"""From node to node, by number."""
NODES = {"own": 0, "on the link": 1, "behind a router": 2}

both_families = pytest.mark.parametrize("family", FAMILIES, ids=lambda one: f"IPv{one}")


class Stage:
    """The lab in use, which goes over to other modes."""

    def __init__(self, underlay: int) -> None:
        self._lab = ExitStack()
        # probes by which nodes ask each other would be counted among what tests send
        self.nodes = self._lab.enter_context(
            nodes_on_link(underlay, encap="auto", probe_interval=0)
        )
        self._route_to_pods()

    def close(self) -> None:
        self._lab.close()

    def go_over(self, mode: Mode) -> None:
        """All nodes, to a mode in which pods are made then."""
        lab = self.nodes.lab
        for node in lab.layout.nodes:
            write_settings(node, encap=mode.encap, routers_know_pods=mode.routed)
            setup(node)
        self.nodes.wait_for_modes(mode.between(0, 1), routed=mode.between(0, 2))
        for pod in lab.layout.pods:
            lab.detach(pod)
            lab.attach(pod)

    def _route_to_pods(self) -> None:
        """The router's, which it needs in some modes only."""
        router = self.nodes.lab.layout.underlay_netns
        for node in self.nodes.lab.layout.nodes:
            for cidr in Node.load(load(node.settings_path)).pod_cidrs:
                there = self.nodes.own(node, cidr.version)
                ip(router, "route", "replace", cidr, "via", there, "dev", BRIDGE)


@pytest.fixture(scope="module", params=UNDERLAYS, ids=lambda underlay: f"IPv{underlay} underlay")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with closing(Stage(request.param)) as made:
        yield made


@pytest.fixture(scope="module", params=MODES, ids=str)
def mode(request: pytest.FixtureRequest, stage: Stage) -> Mode:
    """The cluster is in it: pytest runs all tests of a mode before it goes over to the next."""
    chosen: Mode = request.param
    stage.go_over(chosen)
    return chosen


def leaves_directly(nodes: Nodes, node: int) -> int:
    return nodes.left_directly(nodes.lab.layout.nodes[node])


@pytest.mark.parametrize("place", PLACES)
@both_families
def test_all_sizes_and_kinds_arrive(stage: Stage, mode: Mode, place: str, family: int) -> None:
    """From pod to pod: up to the MTU of the way, and above it in fragments."""
    nodes, (source, target) = stage.nodes, PLACES[place]
    pods = nodes.lab.layout.pods
    there = pods[2 * target + 1]
    is_vxlan = mode.between(source, target) == VXLAN
    mtu = UPLINK_MTU - OVERHEAD[nodes.underlay] if is_vxlan else mode.pod_mtu(nodes.underlay)
    way = pods[2 * source].netns, there.netns, nodes.pod(there, family)
    if family == 6 and mtu < mode.pod_mtu(nodes.underlay):
        exchange_between(*way, [("fragments", 5000, 0)])  # its sender is told, and cuts it smaller
    before = leaves_directly(nodes, source)

    done = exchange_between(*way, plan(family, mtu))

    assert done.came == done.sent
    assert done.bad == []
    is_direct = leaves_directly(nodes, source) - before > len(done.sent) / 2
    assert is_direct == (mode.between(source, target) == DIRECT)


@both_families
def test_pods_have_the_mtu_of_the_mode_and_adapt_to_each_way(
    stage: Stage, mode: Mode, family: int
) -> None:
    nodes = stage.nodes
    pods = nodes.lab.layout.pods
    for pod in pods:
        with open_iproute(pod.netns) as ipr:
            (link,) = ipr.get_links(ifname=POD_IFNAME)
            assert link.get("IFLA_MTU") == mode.pod_mtu(nodes.underlay)
    for target in (pods[1], pods[2], pods[4]):
        with pumping(pods[0].netns, target.netns, nodes.pod(target, family)) as send:
            assert send() is not None


@pytest.mark.parametrize("place", NODES)
@both_families
def test_nodes_and_pods_reach_each_other(stage: Stage, mode: Mode, place: str, family: int) -> None:
    """Node one and a pod of another; a pod of node one and the other node itself."""
    nodes, target = stage.nodes, NODES[place]
    node, pod = nodes.lab.layout.nodes[target], nodes.lab.layout.pods[2 * target]
    own_pod, before = nodes.lab.layout.pods[1], leaves_directly(nodes, 0)
    with answering(pod.netns, nodes.pod(pod, family)) as (port, _):
        seen_as = ask(nodes.one.netns, nodes.pod(pod, family), port, size=1200)
    with pumping(nodes.one.netns, pod.netns, nodes.pod(pod, family)) as send:
        assert send() is not None
    to = nodes.own(node, family)
    # what is too long for VXLAN, an IPv6 underlay cannot cut (bpf/lib/too_big.h)
    is_lost = mode.encap == "direct" and target == 2 and (family, nodes.underlay) == (4, 6)
    size = 1200 if is_lost else 5000
    with answering(node.netns, to) as (port, _):
        if family == 6:
            ask(own_pod.netns, to, port, size=size)  # its sender may be told to cut it smaller
        pod_seen_as = ask(own_pod.netns, to, port, size=size)

    assert seen_as in gateways(nodes.one)
    assert pod_seen_as == nodes.pod(own_pod, family)
    is_direct = leaves_directly(nodes, 0) > before
    assert is_direct == (mode.between(0, target) == DIRECT)


def gateways(node: LabNode) -> list[str]:
    with open_iproute(node.netns) as ipr:
        (device,) = ipr.link_lookup(ifname=overlay.DEVICE)
        return [one.get("IFA_ADDRESS") for one in ipr.get_addr(index=device)]


@both_families
@pytest.mark.usefixtures("mode")
def test_the_world_sees_the_node(stage: Stage, family: int) -> None:
    nodes = stage.nodes
    world = next(str(one) for one in WORLD if one.version == family)
    for number, node in enumerate(nodes.lab.layout.nodes):
        with answering(nodes.lab.layout.underlay_netns, world) as (port, _):
            seen = ask(nodes.lab.layout.pods[2 * number].netns, world, port, size=5000)

        assert seen == nodes.own(node, family)


@pytest.mark.usefixtures("mode")
def test_a_host_port_leads_to_a_pod_from_everywhere(stage: Stage) -> None:
    nodes = stage.nodes
    layout = nodes.lab.layout
    clients = {
        "a pod of the node": layout.pods[2].netns,
        "a pod on the link": layout.pods[0].netns,
        "a pod behind the router": layout.pods[4].netns,
        "a node on the link": nodes.one.netns,
        "a node behind the router": nodes.routed.netns,
        "the world": layout.underlay_netns,
    }
    ports = {"portMappings": [
        {"hostPort": HOST_PORT, "containerPort": TARGET_PORT, "protocol": "udp"}
    ]}  # fmt: skip
    with made_pod(nodes.lab, nodes.two) as pod:
        added = execute(nodes.lab, pod, "ADD", runtimeConfig=ports)
        assert added.status == 0, added.text
        try:
            for one in added.document["ips"]:
                address = one["address"].partition("/")[0]
                to = nodes.own(nodes.two, ip_address(address).version)
                for who, client in clients.items():
                    with answering(pod.netns, address, TARGET_PORT):
                        assert ask(client, to, HOST_PORT) is not None, f"{who} by {to}"
        finally:
            assert execute(nodes.lab, pod, "DEL", runtimeConfig=ports).status == 0
