# SPDX-License-Identifier: Apache-2.0
"""Two nodes on one link that speak BGP with each other and share no store: pods of both IP versions
behind next hops of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from pycni.lab import cluster
from pycni.lab.layout import LabNode
from support import fabric
from support.fabric import NODE_ASN, Fabric
from support.flood import unanswered
from support.labs import prepared_lab, write_settings
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    not fabric.is_there() and os.environ.get("CI") != "true",
    reason="no BIRD on this machine: apt-get install bird2",
)


def own(node: LabNode, version: int) -> str:
    return next(str(one.ip) for one in node.underlay if one.version == version)


@pytest.fixture(scope="module", params=[4, 6], ids=lambda version: f"IPv{version} underlay")
def made(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    with prepared_lab(nodes=2, pods=1, encap="direct", store="bgp:") as lab:
        found = Fabric(lab, is_parted=False)
        for number, node in enumerate(found.nodes, 1):
            other = found.nodes[2 - number]
            peer = {"address": own(other, request.param), "asn": NODE_ASN}
            cidrs = [f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"]
            table = {"asn": NODE_ASN, "learn": ["pods"], "pod_cidrs": cidrs, "peers": [peer]}
            write_settings(node, vtep=own(node, request.param), bgp=table)
            lab.start_agent(node)
        for node in found.nodes:
            cluster.wait_for_agent(lab, node)
        for pod in lab.layout.pods:
            lab.attach(pod)
        try:
            for node in found.nodes:
                found.start_bird(node)
            wait_until(lambda: all(len(found.next_hops(node)) == 2 for node in found.nodes),
                       "each node has learnt the other")  # fmt: skip
            yield found
        finally:
            for name in list(found.birds):
                found.stop_bird(name)


def test_pods_of_both_ip_versions_are_behind_the_one_address_of_the_other_node(
    made: Fabric,
) -> None:
    one, two = made.nodes
    (vtep,) = set(made.next_hops(one).values())
    version = ip_address(vtep).version

    assert vtep == own(two, version)
    assert set(made.next_hops(one)) == {"10.244.2.0/24", "fd00:10:244:2::/64"}


def test_they_answer_each_other(made: Fabric) -> None:
    one, two = made.lab.layout.pods
    for source, target in ((one, two), (two, one)):
        assert unanswered(made.lab, source.netns, made.lab.addresses(target)) == []


def test_all_is_as_it_must_be(made: Fabric) -> None:
    wait_until(lambda: made.status(made.nodes[0], "bgp")[0]["state"] == "ok", "BIRD has the file")
    (row,) = made.status(made.nodes[0], "bgp")

    assert row["state"] == "ok"
    assert row["cause"] == "sessions up: 1 of 1, routes received: 2"
