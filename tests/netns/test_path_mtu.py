# SPDX-License-Identifier: Apache-2.0
"""A router between the nodes whose link to them is narrower than theirs, as with a VPN."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from pycni import locks
from pycni.cluster import IPAddress
from pycni.dataplane.maps import open_path_mtus
from pycni.faults import Fault
from pycni.kernel.routes import Route
from pycni.lab.cluster import Lab
from pycni.lab.layout import BRIDGE, NODE_UPLINK
from pycni.lab.topology import open_rtnl
from pycni.node import overlay
from pycni.node.modes import Mode
from pycni.node.path_mtus import PathMtus, faults, write_all
from pycni.settings import load
from support.flows import FAMILIES, pumping
from support.labs import within
from support.matrix import OVERHEAD, choose_way
from support.narrow_path import NARROW, WIDE, Routed, routed_by, strict_firewall
from support.waiting import wait_until

TINY = 1300
"""An IPv6 packet of 1280 bytes, which every sender may send, does not fit with outer headers."""
ENCAPS = ("ebpf", "kernel")


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: f"IPv{family} underlay")
def routed(request: pytest.FixtureRequest) -> Iterator[Routed]:
    with routed_by(request.param, OVERHEAD[request.param]) as made:
        yield made


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
    narrowed.bulk(narrowed.source.netns, narrowed.target.netns, to)


@pytest.mark.parametrize("family", FAMILIES)
def test_bulk_of_the_node_reaches_another_nodes_pod(narrowed: Routed, family: int) -> None:
    to = narrowed.pod_address(family)
    narrowed.bulk(narrowed.near.netns, narrowed.target.netns, to)


def test_bulk_of_a_pod_reaches_another_nodes_own_address(narrowed: Routed) -> None:
    narrowed.bulk(narrowed.source.netns, narrowed.far.netns, narrowed.vtep(narrowed.far))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_is_told_what_fits(narrowed: Routed, family: int) -> None:
    assert narrowed.told(family) == narrowed.fitting


def test_datagrams_that_may_be_cut_arrive_whole(narrowed: Routed) -> None:
    """To a pod and to a node's own address; one that nobody has cut yet, and a pod's fragments."""
    narrowed.fill()
    places = [(narrowed.target.netns, narrowed.pod_address(4))]
    if narrowed.underlay == 4:
        places.append((narrowed.far.netns, narrowed.vtep(narrowed.far)))

    for place in places:
        narrowed.check_cut_datagrams(*place)


def test_there_are_routes_for_narrow_paths_only(narrowed: Routed) -> None:
    narrowed.fill()

    found = narrowed.looked()
    assert {str(vtep): mtu for vtep, mtu in found.nodes.items()} == {
        narrowed.vtep(narrowed.far): narrowed.fitting
    }
    assert {prefix.version: mtu for prefix, mtu in found.prefixes.items()} == {
        4: narrowed.fitting,
        6: narrowed.fitting,
    }

    narrowed.set_path(WIDE)
    narrowed.fill()

    assert narrowed.looked() == PathMtus()


def test_routes_that_others_removed_come_back(narrowed: Routed) -> None:
    narrowed.fill()
    before = narrowed.looked()
    with open_rtnl(narrowed.near.netns) as ipr:
        device = ipr.ifindex(overlay.DEVICE)
        for prefix in before.prefixes:
            ipr.delete_route(Route(prefix, device, overlay.NEXT_HOPS[prefix.version]))

    assert before.prefixes
    wait_until(lambda: narrowed.looked() == before, "the routes are back")


def test_a_firewall_may_drop_what_connection_tracking_calls_invalid(narrowed: Routed) -> None:
    with strict_firewall(narrowed.near):
        narrowed.fill()


def test_what_is_missing_is_a_fault_and_a_new_map_gets_it(narrowed: Routed) -> None:
    narrowed.fill()
    mtu = WIDE - narrowed.overhead
    settings, far = load(narrowed.near.settings_path), ip_address(narrowed.vtep(narrowed.far))

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
