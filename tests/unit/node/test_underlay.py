# SPDX-License-Identifier: Apache-2.0
"""pycni/node/underlay.py: by which interfaces packets of others come in, and which addresses are
told to other nodes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from pycni.kernel.addresses import IFA_F_DEPRECATED, IFA_F_TEMPORARY
from pycni.kernel.links import Link
from pycni.node.underlay import Underlay
from pycni.stores.records import ADDRESSES_MAX
from unit.node.around import DUMMY, ETH0, ETH1, LO, UP, WIREGUARD, around, held, route, way

BRIDGE = Link(10, UP, "br0", mtu=1500, kind="bridge")
PORT = Link(11, UP, "port1", mtu=1500, kind="veth", master=BRIDGE.ifindex)
VRF = Link(12, UP, "blue", mtu=65575, kind="vrf")
IN_VRF = Link(13, UP, "eth5", mtu=1500, master=VRF.ifindex)
POD_OF_OTHERS = Link(14, UP, "cali1", mtu=1500, kind="veth")
UNMANAGED = Link(15, UP, "eth6", mtu=1500)

CLUSTERS = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))


def outer(seen: Underlay) -> list[str]:
    return [link.ifname for link in seen.outer]


def test_outer_is_what_has_an_address_or_a_route_and_leads_somewhere() -> None:
    links = (LO, ETH0, ETH1, DUMMY, WIREGUARD, BRIDGE, PORT, VRF, IN_VRF, POD_OF_OTHERS, UNMANAGED)
    addresses = [
        held(LO, "203.0.113.1/32"),
        held(ETH0, "192.0.2.1/24"),
        held(DUMMY, "203.0.113.8/32"),
        held(BRIDGE, "198.51.100.1/24"),
        held(PORT, "198.51.100.9/24"),
        held(IN_VRF, "10.1.1.1/24"),
        held(UNMANAGED, "169.254.7.7/16", is_global=False),
    ]
    routes = [
        route("default", way(ETH1, "fe80::1")),
        route("10.9.0.0/16", way(WIREGUARD)),
        route("10.7.7.7/32", way(POD_OF_OTHERS)),
        route("fe80::/64", way(POD_OF_OTHERS)),
        route("fe80::/64", way(UNMANAGED)),
    ]

    found = outer(around(addresses, routes, links))

    assert found == ["eth0", "eth1", "wg0", "br0", "eth5"]


def test_a_port_whose_master_is_unknown_is_a_port() -> None:
    port = Link(11, UP, "port1", mtu=1500, master=99)

    assert outer(around([held(port, "192.0.2.1/24")], links=[port])) == []


def test_the_addresses_of_a_node_are_all_that_stay() -> None:
    down = Link(20, 0, "kube-ipvs0", kind="dummy")
    vtep = ip_address("192.0.2.1")
    addresses = [
        held(LO, "127.0.0.1/8", is_global=False),
        held(LO, "203.0.113.1/32"),
        held(ETH0, "192.0.2.77/32"),
        held(ETH0, "192.0.2.1/24"),
        held(ETH0, "2001:db8::1/64"),
        held(ETH0, "2001:db8::2/64", IFA_F_TEMPORARY),
        held(ETH0, "2001:db8::3/64", IFA_F_DEPRECATED),
        held(ETH0, "fe80::1/64", is_global=False),
        held(ETH1, "198.51.100.1/24"),
        held(DUMMY, "169.254.20.10/32"),
        held(DUMMY, "10.244.9.9/32"),
        held(down, "10.96.0.1/32"),
    ]

    found = around(addresses, links=(LO, ETH0, ETH1, DUMMY, down)).own_addresses(CLUSTERS, vtep)

    expected = ["192.0.2.1", "198.51.100.1", "2001:db8::1", "192.0.2.77", "203.0.113.1"]
    assert list(map(str, found)) == expected


def test_the_vtep_is_the_first_address_even_while_it_is_away() -> None:
    vtep = ip_address("192.0.2.1")

    assert around([held(ETH0, "192.0.2.2/24")]).own_addresses(CLUSTERS, vtep) == [
        vtep,
        ip_address("192.0.2.2"),
    ]


def test_no_more_addresses_are_told_than_a_record_may_have() -> None:
    many = [held(ETH0, f"198.18.{number}.1/32") for number in range(ADDRESSES_MAX)]

    found = around(many).own_addresses(CLUSTERS, ip_address("192.0.2.1"))

    assert len(found) == ADDRESSES_MAX


def test_the_way_to_an_address_is_that_of_the_longest_prefix_and_the_lowest_metric() -> None:
    seen = around(
        [],
        [
            route("default", way(ETH0, "192.0.2.254")),
            route("10.0.0.0/8", way(ETH1), metric=100),
            route("10.0.0.0/8", way(WIREGUARD), metric=50),
            route("10.1.0.0/16", way(ETH0), way(ETH1)),
            route("2001:db8::/32", way(ETH1)),
        ],
    )

    def ways(address: str) -> list[str]:
        return [link.ifname for link in seen.ways(ip_address(address))]

    assert ways("203.0.113.1") == ["eth0"]
    assert ways("10.2.0.1") == ["wg0"]
    assert ways("10.1.0.1") == ["eth0", "eth1"]
    assert ways("2001:db8::1") == ["eth1"]
    assert ways("2001:db9::1") == []
