# SPDX-License-Identifier: Apache-2.0
"""A router between the nodes whose link to them is narrower than theirs, as with a VPN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from pycni import locks
from pycni.cluster import IPAddress
from pycni.dataplane.maps import open_path_mtus
from pycni.faults import Fault
from pycni.kernel import nft
from pycni.kernel.routes import Route
from pycni.lab import checks
from pycni.lab.cluster import Lab
from pycni.lab.layout import (
    BRIDGE,
    NODE_UPLINK,
    LabNode,
    Pod,
)
from pycni.lab.topology import open_rtnl
from pycni.node import overlay
from pycni.node.modes import Mode
from pycni.node.path_mtus import PathMtus, faults, look, write_all
from pycni.settings import load
from support.flows import FAMILIES, answering, ask, pumping
from support.kernel import open_iproute
from support.labs import rows, within
from support.matrix import Surroundings, choose_way, surrounded
from support.underlay import FORWARDING, ROUTERS, write_parameters
from support.waiting import wait_until

OVERHEAD = {4: 50, 6: 70}
WIDE, NARROW = 1500, 1400
"""MTU of the nodes' links, and of the router's to them."""
TINY = 1300
"""An IPv6 packet of 1280 bytes, which every sender may send, does not fit with outer headers."""
ENCAPS = ("ebpf", "kernel")
FORGETTING = {"net/ipv4/route/mtu_expires": "3", "net/ipv6/route/mtu_expires": "3"}
"""Seconds for which pods remember a path's MTU: each test begins with pods that know nothing."""
PRIORITY = 7
"""Of the nodes' routes to each other. Routes that differ in nothing but the destination share what
the kernel learns of their paths, and the default route leads to the same router."""
LINK_SCOPE = 253
"""RT_SCOPE_LINK, linux/rtnetlink.h."""


@dataclass(frozen=True)
class Routed:
    """Two nodes, each with a pod, that reach each other by a router only."""

    lab: Lab
    underlay: int
    """IP version of the VTEPs."""

    @property
    def source(self) -> Pod:
        return self.lab.layout.pods[0]

    @property
    def target(self) -> Pod:
        return self.lab.layout.pods[1]

    @property
    def near(self) -> LabNode:
        return self.lab.layout.nodes[0]

    @property
    def far(self) -> LabNode:
        return self.lab.layout.nodes[1]

    @property
    def fitting(self) -> int:
        """Bytes of a pod's packet that fit the narrow path."""
        return NARROW - OVERHEAD[self.underlay]

    def vtep(self, node: LabNode) -> str:
        return str(next(one.ip for one in node.underlay if one.version == self.underlay))

    def pod_address(self, family: int) -> str:
        """The second pod's."""
        found = self.lab.addresses(self.target)
        return next(one for one in found if ip_address(one).version == family)

    def set_path(self, mtu: int) -> None:
        """Between the nodes. They know nothing of it yet."""
        with open_rtnl(self.lab.layout.underlay_netns) as ipr:
            bridge = ipr.ifindex(BRIDGE)
            for node in (self.near, self.far):
                to = ip_network(self.vtep(node))
                ipr.replace_route(Route(to, bridge, scope=LINK_SCOPE, mtu=mtu, mtu_locked=True))
        for node, other in ((self.near, self.far), (self.far, self.near)):
            with open_rtnl(node.netns) as ipr:
                to = ip_network(self.vtep(other))
                route = Route(
                    to, ipr.ifindex(NODE_UPLINK), ROUTERS[self.underlay], priority=PRIORITY
                )
                if any(one.dst == to for one in ipr.routes()):
                    ipr.delete_route(route)  # and with it what the kernel learnt of the path
                ipr.add_route(route)
        wait_until(lambda: not self.narrow(self.near), "all paths of the one node are wide")
        wait_until(lambda: not self.narrow(self.far), "all paths of the other node are wide")
        known = [*self.lab.addresses(self.target), self.vtep(self.far)]
        wait_until(lambda: not any(learnt_mtu(self.source, to) for to in known), "the pod forgot")

    def narrow(self, node: LabNode) -> dict[str, int]:
        """The node's map `path_mtus`."""
        return {row["vtep"]: row["mtu"] for row in rows(self.lab, node, "path_mtus")}

    def looked(self) -> PathMtus:
        """What map and routes of the first node hold."""
        settings = load(self.near.settings_path)
        return within(self.near.netns, lambda: look(settings))


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: f"IPv{family} underlay")
def routed(request: pytest.FixtureRequest) -> Iterator[Routed]:
    with surrounded(Surroundings(request.param, WIDE)) as lab:
        within(lab.layout.underlay_netns, lambda: write_parameters(FORWARDING))
        for pod in lab.layout.pods:
            within(pod.netns, lambda: write_parameters(FORGETTING))
        yield Routed(lab, request.param)


@pytest.fixture(scope="module", params=ENCAPS)
def wide(routed: Routed, request: pytest.FixtureRequest) -> Routed:
    """`encap` of both nodes is the parameter."""
    routed.set_path(WIDE)
    choose_way(routed.lab, (request.param, request.param))
    return routed


@pytest.fixture
def narrowed(wide: Routed) -> Routed:
    """The path is narrow since just now."""
    wide.set_path(NARROW)
    return wide


@pytest.mark.parametrize("family", FAMILIES)
def test_bulk_reaches_another_nodes_pod(narrowed: Routed, family: int) -> None:
    to = narrowed.pod_address(family)
    with pumping(narrowed.source.netns, narrowed.target.netns, to) as send:
        assert send() is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_bulk_of_the_node_reaches_another_nodes_pod(narrowed: Routed, family: int) -> None:
    to = narrowed.pod_address(family)
    with pumping(narrowed.near.netns, narrowed.target.netns, to) as send:
        assert send() is not None


def test_bulk_of_a_pod_reaches_another_nodes_own_address(narrowed: Routed) -> None:
    to = narrowed.vtep(narrowed.far)
    with pumping(narrowed.source.netns, narrowed.far.netns, to) as send:
        assert send() is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_is_told_what_fits(narrowed: Routed, family: int) -> None:
    source, to = narrowed.source, narrowed.pod_address(family)
    size = overlay_mtu(narrowed) - checks.ICMP_HEADERS[family]

    def ping() -> None:
        words = ("--size", str(size), "--dont-fragment", "--count", "1", "--grace", "0.1")
        narrowed.lab.peer(source.netns, "echo", to, *words)

    ping()  # the router answers this one, and the node takes it in
    known = {narrowed.vtep(narrowed.far): narrowed.fitting}
    wait_until(lambda: narrowed.narrow(narrowed.near) == known, "the path is known")
    ping()

    assert learnt_mtu(source, to) == narrowed.fitting


def learnt_mtu(pod: Pod, address: str) -> int:
    """The path MTU that a pod's kernel knows for an address; 0 if none."""
    with open_iproute(pod.netns) as ipr:
        (route,) = ipr.route("get", dst=address)
        metrics = route.get("RTA_METRICS")
        return int(metrics.get("RTAX_MTU") or 0) if metrics is not None else 0


def fill_the_path(routed: Routed) -> None:
    """So that the first node knows what it carries."""
    with pumping(routed.source.netns, routed.target.netns, routed.pod_address(4)) as send:
        assert send() is not None


def test_datagrams_that_may_be_cut_arrive_whole(narrowed: Routed) -> None:
    """To a pod and to a node's own address; one that nobody has cut yet, and a pod's fragments."""
    fill_the_path(narrowed)
    places = [(narrowed.target.netns, narrowed.pod_address(4))]
    if narrowed.underlay == 4:
        places.append((narrowed.far.netns, narrowed.vtep(narrowed.far)))

    for netns, to in places:
        with answering(netns, to) as (port, heard):
            for size in (NARROW - 28, 5000):
                ask(narrowed.source.netns, to, port, size=size)

                assert heard()["size"] == size


def test_there_are_routes_for_narrow_paths_only(narrowed: Routed) -> None:
    fill_the_path(narrowed)

    found = narrowed.looked()
    assert {str(vtep): mtu for vtep, mtu in found.nodes.items()} == {
        narrowed.vtep(narrowed.far): narrowed.fitting
    }
    assert {prefix.version: mtu for prefix, mtu in found.prefixes.items()} == {
        4: narrowed.fitting,
        6: narrowed.fitting,
    }

    narrowed.set_path(WIDE)
    fill_the_path(narrowed)

    assert narrowed.looked() == PathMtus()


def test_routes_that_others_removed_come_back(narrowed: Routed) -> None:
    fill_the_path(narrowed)
    before = narrowed.looked()
    with open_rtnl(narrowed.near.netns) as ipr:
        device = ipr.ifindex(overlay.DEVICE)
        for prefix in before.prefixes:
            ipr.delete_route(Route(prefix, device, overlay.NEXT_HOPS[prefix.version]))

    assert before.prefixes
    wait_until(lambda: narrowed.looked() == before, "the routes are back")


def test_a_firewall_may_drop_what_connection_tracking_calls_invalid(narrowed: Routed) -> None:
    """As ufw does, before it accepts routers' errors."""
    rules = "type filter hook input priority 0; ct state related accept; ct state invalid drop;"
    table = f"table inet others {{ chain incoming {{ {rules} }}; }}"
    within(narrowed.near.netns, lambda: nft.run(table, what="a firewall"))
    try:
        fill_the_path(narrowed)
    finally:
        within(narrowed.near.netns, lambda: nft.delete_table("others", what="a firewall"))


def test_what_is_missing_is_a_fault_and_a_new_map_gets_it(narrowed: Routed) -> None:
    fill_the_path(narrowed)
    settings, far = load(narrowed.near.settings_path), ip_address(narrowed.vtep(narrowed.far))
    mtu = overlay_mtu(narrowed)

    def check() -> tuple[list[Fault], list[Fault], dict[IPAddress, int]]:
        with locks.network_lock(settings.run_dir), open_path_mtus(settings.pin_root) as table:
            table.remove(far)
            missing = faults(settings)
            vtep = ip_address(narrowed.vtep(narrowed.near))
            write_all(settings.pin_root, vtep, {far: Mode.VXLAN}, overlay_mtu=mtu)
            return missing, faults(settings), dict(table.items())

    missing, then, written = within(narrowed.near.netns, check)

    assert [fault.sentence for fault in missing] == [
        f"the path MTU of node {far} is gone, not {narrowed.fitting}"
    ]
    assert then == []
    assert written == {far: narrowed.fitting}


def overlay_mtu(routed: Routed) -> int:
    return WIDE - OVERHEAD[routed.underlay]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_goes_on_when_the_path_gets_narrow(wide: Routed, family: int) -> None:
    wide.set_path(WIDE)
    to = wide.pod_address(family)
    with pumping(wide.source.netns, wide.target.netns, to) as send:
        before = send()
        wide.set_path(NARROW)

        assert before is not None
        assert send() is not None


@pytest.mark.parametrize("routed", [4], indirect=True, scope="module", ids=["IPv4 underlay"])
def test_ipv6_crosses_a_path_that_is_too_narrow_for_it(wide: Routed) -> None:
    """No IPv6 sender needs to send less than 1280 bytes (RFC 8200 5): the outer packet is cut. The
    kernel does not do that in an IPv6 underlay."""
    wide.set_path(TINY)
    to = wide.pod_address(6)
    for source in (wide.source.netns, wide.near.netns):
        with pumping(source, wide.target.netns, to) as send:
            assert send() is not None, source


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_goes_on_when_the_uplinks_get_narrower(wide: Routed, family: int) -> None:
    wide.set_path(WIDE)
    to = wide.pod_address(family)
    with pumping(wide.source.netns, wide.target.netns, to) as send:
        before = send()
        set_links(wide.lab, NARROW)
        try:
            during = send()
        finally:
            set_links(wide.lab, WIDE)

        assert before is not None
        assert during is not None
        assert send() is not None


def set_links(lab: Lab, mtu: int) -> None:
    """The MTU of the nodes' uplinks and of the switch, as an administrator sets it."""
    underlay = lab.layout.underlay_netns
    places = [(underlay, node.port) for node in lab.layout.nodes]
    places += [(underlay, BRIDGE), *((node.netns, NODE_UPLINK) for node in lab.layout.nodes)]
    for netns, ifname in places:
        with open_rtnl(netns) as ipr:
            ipr.set_mtu(ipr.ifindex(ifname), mtu)
