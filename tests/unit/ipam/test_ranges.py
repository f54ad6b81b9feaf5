# SPDX-License-Identifier: Apache-2.0
"""pycni/ipam/ranges.py: what a configuration may say of ranges, and what is refused."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from pycni.cni.netconf import NetConf, parse_netconf
from pycni.errors import InvalidConfig
from pycni.ipam import ranges
from pycni.node.record import Node

NODE = Node(
    name="one",
    node_id=1,
    vtep=ip_address("192.0.2.1"),
    pod_cidrs=(ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
    cluster_cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56")),
    uplink="eth0",
    mtu=1450,
    port=4789,
)


def conf(**ipam: object) -> NetConf:
    document = {"cniVersion": "1.0.0", "name": "podnet", "ipam": {"type": "pycni"} | ipam}
    return parse_netconf(json.dumps(document).encode())


def test_a_network_leaves_out_its_own_addresses() -> None:
    four, six = ranges.configured(conf(ranges=["10.244.1.64/29", "fd00:10:244:1::/120"]), NODE)

    assert [str(one) for one in four[:3]] == ["10.244.1.64/29", "10.244.1.65", "10.244.1.70"]
    assert [str(one) for one in six[1:3]] == ["fd00:10:244:1::1", "fd00:10:244:1::ff"]


@pytest.mark.parametrize(
    "found",
    [
        "10.244.1.0/24",
        [5],
        ["10.244.1.1/24"],
        ["ten"],
        [{}],
        [{"subnet": 5}],
        [{"subnet": "10.244.1.0/24", "rangeStart": "10.244.2.1"}],
        [{"subnet": "10.244.1.0/24", "rangeStart": 0}],
        [{"subnet": "10.244.1.0/24", "rangeStart": "10.244.1.9", "rangeEnd": "10.244.1.8"}],
        ["192.0.2.0/24"],
    ],
)
def test_ranges_that_are_malformed_or_not_the_clusters_are_refused(found: object) -> None:
    with pytest.raises(InvalidConfig):
        ranges.configured(conf(ranges=found), NODE)


@pytest.mark.parametrize("found", ["10.244.1.0/24", [5], ["ten"]])
def test_malformed_exclusions_are_refused(found: object) -> None:
    with pytest.raises(InvalidConfig, match="exclude"):
        list(ranges.excluded(conf(exclude=found)))


@pytest.mark.parametrize("found", [None, []])
def test_nothing_may_be_excluded(found: object) -> None:
    assert list(ranges.excluded(conf(exclude=found))) == []


def test_ranges_outside_the_nodes_own_cidrs_are_known() -> None:
    found = ranges.configured(conf(ranges=["10.244.1.0/25", "10.244.9.0/24"]), NODE)

    assert ranges.outside(found, NODE) == [ip_network("10.244.9.0/24")]
