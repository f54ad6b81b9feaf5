# SPDX-License-Identifier: Apache-2.0
"""pycni/ipam/allocation.py: which addresses our own IPAM gives, from which pools."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.cluster import IPAddress
from pycni.cni.netconf import NetConf, parse_netconf
from pycni.cni.protocol import Request
from pycni.errors import AddressUnavailable, PoolExhausted
from pycni.ipam import allocation, published
from pycni.ipam.pools import Rotation
from pycni.node.record import Node
from pycni.pods import resting
from pycni.pods.resting import Resting

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
FIRST = ["10.244.1.2", "fd00:10:244:1::2"]


class Node1:
    """Addresses in use, claimed one after the other."""

    def __init__(self, directory: Path) -> None:
        self.used: set[IPAddress] = set()
        self.directory = directory

    def claim(self, address: IPAddress) -> str:
        free = address not in self.used
        self.used.add(address)
        return "" if free else "node two"

    def take(self, conf: NetConf, *, at: Node = NODE, **args: str) -> list[str]:
        taken = allocation.allocate(
            Request("ADD", args=args),
            conf,
            node=at,
            rotation=Rotation(self.directory),
            resting=Resting(self.directory),
            claim=self.claim,
        )
        return [str(one) for one in taken]


@pytest.fixture
def node(tmp_path: Path) -> Node1:
    return Node1(tmp_path)


def conf(ranges: object = None, exclude: object = None, **runtime: object) -> NetConf:
    ipam = {"type": "pycni", "ranges": ranges, "exclude": exclude}
    document = {"cniVersion": "1.0.0", "name": "podnet", "ipam": ipam, "runtimeConfig": runtime}
    return parse_netconf(json.dumps(document).encode())


def test_a_pod_gets_one_address_of_each_version_and_the_next_pod_the_next(node: Node1) -> None:
    assert node.take(conf()) == FIRST
    assert node.take(conf()) == ["10.244.1.3", "fd00:10:244:1::3"]


def test_an_address_that_is_asked_for_takes_the_place_of_one_of_its_version(node: Node1) -> None:
    assert node.take(conf(), IP="10.244.1.77") == ["10.244.1.77", FIRST[1]]


@pytest.mark.parametrize(
    "address",
    ["10.245.0.1", "192.0.2.9", "2001:db8::1", "10.244.1.0", "10.244.1.1", "10.244.1.255"],
)
def test_an_address_of_nobodys_or_reserved_is_unavailable(node: Node1, address: str) -> None:
    with pytest.raises(AddressUnavailable):
        node.take(conf(), IP=address)
    assert node.used == set()


def test_an_address_in_use_is_unavailable(node: Node1) -> None:
    node.take(conf(), IP="10.244.1.77")

    with pytest.raises(
        AddressUnavailable, match=r"10\.244\.1\.77 that was asked for is taken by node two"
    ):
        node.take(conf(), IP="10.244.1.77")


def test_excluded_addresses_are_given_to_those_who_ask_only(node: Node1) -> None:
    configured = conf(exclude=["10.244.1.0/25"])

    assert node.take(configured)[0] == "10.244.1.128"
    assert node.take(configured, IP="10.244.1.9")[0] == "10.244.1.9"


@pytest.mark.parametrize(
    "ranges",
    [
        ["10.244.1.64/30"],
        [["10.244.1.64/30"]],
        [{"subnet": "10.244.1.64/30"}],
        [[{"subnet": "10.244.1.0/24", "rangeStart": "10.244.1.65", "rangeEnd": "10.244.1.66"}]],
        [{"Subnet": "10.244.1.0/24", "RangeStart": "10.244.1.65", "RangeEnd": "10.244.1.66"}],
    ],
)
def test_ranges_take_the_place_of_the_pod_cidr_of_their_version(
    node: Node1, ranges: object
) -> None:
    assert node.take(conf(ranges)) == ["10.244.1.65", FIRST[1]]
    assert node.take(conf(ipRanges=ranges))[0] == "10.244.1.66"
    with pytest.raises(PoolExhausted):
        node.take(conf(ranges))


def test_a_capabilitys_ranges_win_over_the_configured(node: Node1) -> None:
    both = conf(["10.244.1.64/30"], ipRanges=[[{"subnet": "10.244.1.128/30"}]])

    assert node.take(both)[0] == "10.244.1.129"


def test_an_address_that_rests_is_passed_over_but_given_to_whom_asks(node: Node1) -> None:
    resting.rest(node.directory, map(ip_address, FIRST))

    passed_over = node.take(conf())
    asked_for = node.take(conf(ips=[FIRST[0]]))

    assert passed_over == ["10.244.1.3", "fd00:10:244:1::3"]
    assert asked_for[0] == FIRST[0]


GROWN = replace(NODE, blocks=(ip_network("10.244.7.0/24"),))


def test_a_further_block_is_used_when_the_first_is_full(node: Node1) -> None:
    node.used = {NODE.pod_cidrs[0][number] for number in range(256)}
    with pytest.raises(PoolExhausted, match=r"10\.244\.1\.0/24: 253 of 253"):
        node.take(conf())

    assert node.take(conf(), at=GROWN) == ["10.244.7.2", "fd00:10:244:1::2"]
    node.used.discard(ip_address("10.244.1.9"))
    assert node.take(conf(), at=GROWN)[0] == "10.244.1.9"
    assert node.take(conf(), at=GROWN)[0] == "10.244.7.3"


def test_an_address_of_a_further_block_may_be_asked_for_but_a_reserved_one(node: Node1) -> None:
    assert node.take(conf(), at=GROWN, IP="10.244.7.9")[0] == "10.244.7.9"
    for address in ("10.244.7.0", "10.244.7.255"):
        with pytest.raises(AddressUnavailable, match="reserved"):
            node.take(conf(), at=GROWN, IP=address)


def test_ranges_and_exclusions_are_of_all_blocks(node: Node1) -> None:
    assert node.take(conf(["10.244.7.64/30"]), at=GROWN)[0] == "10.244.7.65"
    excluded = conf(exclude=["10.244.1.0/24", "10.244.7.0/25"])
    assert node.take(excluded, at=GROWN)[0] == "10.244.7.128"


def test_an_address_of_a_further_block_is_not_published_one_by_one() -> None:
    assert published.is_outside(ip_address("10.244.7.9"), NODE)
    assert not published.is_outside(ip_address("10.244.7.9"), GROWN)
