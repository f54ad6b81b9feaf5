# SPDX-License-Identifier: Apache-2.0
"""Narrow paths: deciding, without a kernel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.cluster import IPAddress
from pycni.faults import Weight
from pycni.kernel.fib import Path
from pycni.kernel.links import IFF_RUNNING, IFF_UP, Link
from pycni.node.modes import Mode
from pycni.node.path_mtus import PathMtus, differences, narrow, untracked_errors, wanted
from pycni.node.record import Node

UPLINK = Link(2, IFF_UP | IFF_RUNNING, mac="02:00:00:00:00:02", mtu=1500)
TUNNEL = Link(3, IFF_UP, mtu=1420, hardware=65534)
NODE, OTHER, NODE6 = (ip_address(one) for one in ("192.0.2.7", "192.0.2.8", "2001:db8::7"))
CIDR, CIDR6 = ip_network("10.1.2.0/24"), ip_network("fd10:0:0:2::/64")
EXTRA, OTHER_CIDR = ip_network("10.9.9.9/32"), ip_network("10.1.3.0/24")
REMOTES = {CIDR: NODE, CIDR6: NODE, EXTRA: NODE, OTHER_CIDR: OTHER}


def test_a_path_is_narrow_if_less_fits_than_the_overlays_mtu() -> None:
    paths = {NODE: Path(2, NODE, 1400), OTHER: Path(2, OTHER, 0)}

    assert narrow(paths, {2: UPLINK}, overlay_mtu=1450) == {NODE: 1350}
    assert narrow(paths, {2: UPLINK}, overlay_mtu=1350) == {}


def test_a_path_by_a_narrower_link_is_narrow() -> None:
    """Ethernet or not: the VXLAN device sends by any link."""
    links = {2: UPLINK, 3: TUNNEL}

    assert narrow({NODE: Path(3, NODE, 0)}, links, overlay_mtu=1450) == {NODE: 1370}


def test_an_ipv6_underlay_takes_more() -> None:
    assert narrow({NODE6: Path(2, NODE6, 0)}, {2: UPLINK}, overlay_mtu=1450) == {NODE6: 1430}


def test_a_path_without_a_link_says_nothing() -> None:
    assert narrow({NODE: Path(9, NODE, 1400)}, {2: UPLINK}, overlay_mtu=1450) == {}


def test_without_an_overlay_device_nothing_is_narrow() -> None:
    assert narrow({NODE: Path(2, NODE, 1400)}, {2: UPLINK}, overlay_mtu=0) == {}


def test_all_that_is_behind_a_narrow_path_gets_a_route() -> None:
    found = wanted({NODE: 1350}, REMOTES)

    assert found == PathMtus({NODE: 1350}, {CIDR: 1350, CIDR6: 1350, EXTRA: 1350})


def test_no_ipv6_route_has_less_than_every_link() -> None:
    found = wanted({NODE: 1200}, REMOTES)

    assert found.nodes == {NODE: 1200}
    assert found.prefixes == {CIDR: 1200, CIDR6: 1280, EXTRA: 1200}


@pytest.mark.parametrize("vtep", [NODE, NODE6], ids=["IPv4", "IPv6"])
def test_errors_about_what_our_programs_encapsulate_are_not_tracked(vtep: IPAddress) -> None:
    node = Node("one", 1, vtep, (CIDR,), (CIDR,), "eth0", 1450, 8472, encap="ebpf")

    (rule,) = untracked_errors(node)
    assert ("icmpv6" in rule) == (vtep.version == 6)
    assert " 8472 " in rule
    assert rule.endswith("notrack")
    assert untracked_errors(replace(node, encap="kernel")) == ()


@pytest.mark.parametrize("vtep", [NODE, NODE6], ids=["IPv4", "IPv6"])
def test_errors_about_ipip_are_not_tracked_either(vtep: IPAddress) -> None:
    node = Node("one", 1, vtep, (CIDR,), (CIDR,), "eth0", 1480, 8472, encap="kernel", ipip=True)

    of4, of6 = untracked_errors(node)
    assert of4.endswith(",8 4 notrack")
    assert of6.endswith(",8 41 notrack")
    assert len(untracked_errors(replace(node, encap="ebpf"))) == 3


def test_nodes_that_get_vxlan_beside_ipip_are_behind_narrow_paths() -> None:
    paths = {NODE: Path(2, NODE, 0), NODE6: Path(2, NODE6, 0)}

    assert narrow(paths, {2: UPLINK}, overlay_mtu=1460, modes={NODE6: Mode.IPIP}) == {NODE: 1450}


def test_what_differs_is_a_fault_by_name() -> None:
    have = PathMtus({NODE: 1400}, {CIDR: 1350, OTHER_CIDR: 1300})
    want = PathMtus({NODE: 1350}, {CIDR: 1350, CIDR6: 1350})

    found = differences(have, want)

    assert [fault.sentence for fault in found] == [
        "the path MTU of node 192.0.2.7 is 1400, not 1350",
        "the MTU of the route to fd10:0:0:2::/64 is gone, not 1350",
        "the MTU of the route to 10.1.3.0/24 is 1300, without need",
    ]
    assert [fault.weight for fault in found] == [Weight.BROKEN, Weight.BROKEN, Weight.DEGRADED]


def test_what_agrees_is_no_fault() -> None:
    want = wanted({NODE: 1350}, REMOTES)

    assert differences(want, want) == []
