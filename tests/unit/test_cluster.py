# SPDX-License-Identifier: Apache-2.0
"""The cluster's parameters among themselves and against the underlay."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cluster import (
    VXLAN_OVERHEAD,
    Cluster,
    IPNetwork,
    check_underlay,
    mtu_needed,
    node_capacity,
    overlap,
    overlay_mtu,
)
from pycni.errors import ClusterError

PODS4 = ip_network("10.244.0.0/16")
PODS6 = ip_network("fd00:10:244::/56")


def make(*cidrs: IPNetwork, node_prefix4: int = 24, node_prefix6: int = 64) -> Cluster:
    return Cluster(
        cidrs=cidrs, node_prefix4=node_prefix4, node_prefix6=node_prefix6, vni=7, port=4789
    )


DUAL = make(PODS4, PODS6)
IPV4_ONLY = make(PODS4)


def test_a_cluster_has_one_or_both_families() -> None:
    assert DUAL.has_family(4)
    assert DUAL.has_family(6)
    assert not IPV4_ONLY.has_family(6)
    assert DUAL.node_prefix(4) == 24
    assert DUAL.node_prefix(6) == 64


@pytest.mark.parametrize("cidrs", [(), (PODS4, ip_network("10.0.0.0/16"))])
def test_no_cidr_or_two_of_a_family_are_refused(cidrs: tuple[IPNetwork, ...]) -> None:
    with pytest.raises(ClusterError, match=f"{len(cidrs)} cluster CIDRs"):
        make(*cidrs)


@pytest.mark.parametrize(
    ("cidr", "node_prefix", "hint"),
    [
        (PODS4, 15, "node_prefix.ipv4 must be from 16 to 30"),
        (PODS4, 31, "node_prefix.ipv4 must be from 16 to 30"),
        (PODS6, 55, "node_prefix.ipv6 must be from 56 to 126"),
        (PODS6, 127, "node_prefix.ipv6 must be from 56 to 126"),
        (ip_network("10.0.0.0/31"), 31, "the cluster CIDR must be a /30 or larger"),
    ],
)
def test_a_node_prefix_without_room_is_refused(
    cidr: IPNetwork, node_prefix: int, hint: str
) -> None:
    with pytest.raises(
        ClusterError, match=f"/{node_prefix} each out of the cluster CIDR"
    ) as caught:
        make(cidr, node_prefix4=node_prefix, node_prefix6=node_prefix)

    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "cidr",
    [
        "0.0.0.0/0",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/8",
        "fe80::/64",
        "ff00::/16",
        "::ffff:10.0.0.0/104",
    ],
)
def test_a_range_pods_cannot_use_is_refused(cidr: str) -> None:
    with pytest.raises(ClusterError, match="pods cannot have addresses out of"):
        make(ip_network(cidr), node_prefix6=112)


def test_capacity_is_the_number_of_pod_cidrs() -> None:
    assert node_capacity(PODS4, 24) == 256
    assert node_capacity(PODS4, 16) == 1


@pytest.mark.parametrize("network", ["10.244.7.0/24", "10.0.0.0/8", "fd00:10:244:1::/64"])
def test_an_overlap_with_the_underlay_names_both(network: str) -> None:
    with pytest.raises(ClusterError) as caught:
        check_underlay(DUAL, [ip_network("192.0.2.0/24"), ip_network(network)])

    cidr = PODS6 if ":" in network else PODS4
    assert caught.value.message == (
        f"the cluster CIDR {cidr} overlaps the network {network} of this node"
    )


def test_default_routes_and_other_networks_do_not_overlap() -> None:
    networks = ["0.0.0.0/0", "::/0", "192.0.2.0/24", "2001:db8::/64"]

    check_underlay(DUAL, map(ip_network, networks))


def test_the_overlay_takes_50_bytes_over_ipv4_and_70_over_ipv6() -> None:
    assert overlay_mtu(1500, VXLAN_OVERHEAD[4], DUAL) == 1450
    assert overlay_mtu(1500, VXLAN_OVERHEAD[6], DUAL) == 1430


def test_the_smallest_mtu_that_fits_is_enough() -> None:
    assert overlay_mtu(1330, VXLAN_OVERHEAD[4], DUAL) == mtu_needed(DUAL) == 1280
    assert overlay_mtu(626, VXLAN_OVERHEAD[4], IPV4_ONLY) == mtu_needed(IPV4_ONLY) == 576


def test_an_uplink_too_small_for_ipv6_is_refused_with_what_is_needed() -> None:
    with pytest.raises(ClusterError) as caught:
        overlay_mtu(1349, VXLAN_OVERHEAD[6], DUAL)

    assert caught.value.message == (
        "the uplink's MTU of 1349 leaves 1279 bytes for pods, IPv6 needs 1280"
    )
    assert "to 1350 or more, or run the cluster without IPv6" in caught.value.hint


def test_an_uplink_too_small_for_ipv4_is_refused_with_what_is_needed() -> None:
    with pytest.raises(ClusterError, match="leaves 575 bytes for pods, IPv4 needs 576"):
        overlay_mtu(625, VXLAN_OVERHEAD[4], IPV4_ONLY)


def networks(
    kind: type[IPv4Network] | type[IPv6Network], bits: int
) -> st.SearchStrategy[IPNetwork]:
    """Few addresses, so that many overlap."""
    number = st.integers(0, 7).map(lambda high: high << (bits - 3))
    return st.builds(
        lambda address, length: kind((address, length), strict=False), number, st.integers(0, bits)
    )


NETWORKS = st.one_of(networks(IPv4Network, 32), networks(IPv6Network, 128))


@given(NETWORKS, NETWORKS)
def test_what_overlaps_is_what_the_library_says(one: IPNetwork, other: IPNetwork) -> None:
    expected = one.version == other.version and one.overlaps(other)

    assert overlap(one, other) == expected
    assert overlap(other, one) == expected


def test_asking_leaves_nothing_at_a_network() -> None:
    one, other = ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")
    before = [set(vars(network)) for network in (one, other)]

    for network in (one, other):
        overlap(network, PODS4), overlap(PODS6, network)
    assert [set(vars(network)) for network in (one, other)] == before
