# SPDX-License-Identifier: Apache-2.0
"""Rate limits on real packets, as bytes over seconds: not above the rate, and not far below it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from pycni.kernel.qdiscs import TC_H_ROOT
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, Pod
from support.flows import throughput
from support.kernel import open_iproute
from support.labs import made_pod, rows
from support.plugin import Reply, execute
from support.snapshot import differences, take

MEGABIT = 10**6
RATE = 20 * MEGABIT
BURST_OF_CONTAINERD = 2**32 - 1
BURST_OF_CRIO = 8 * (2**32 - 1) - 1
LIMITS: dict[str, Any] = {
    "IngressRate": RATE,
    "IngressBurst": BURST_OF_CONTAINERD,
    "EgressRate": RATE,
    "EgressBurst": BURST_OF_CONTAINERD,
}
TRIES = 3
TOLERANCE = 0.1
"""Of the rate, both ways; headers are in the rate, and not in what is counted here."""
INVALID = 7

both_ways = pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])
other_pods = pytest.mark.parametrize("other", [0, -1], ids=["same node", "other node"])
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])


def add(lab: Lab, pod: Pod, *, alone: bool = False, **limits: int) -> Reply:
    return execute(lab, pod, "ADD", alone=alone, runtimeConfig={"bandwidth": limits})


def address(addresses: list[str], family: int = 4) -> str:
    return next(one for one in addresses if ip_address(one).version == family)


def assert_limited(*words: str) -> None:
    """Between TOLERANCE below the rate and above it, as `throughput` measures it.

    Never above; a busy machine may send too little, and tries again.
    """
    for _ in range(TRIES):
        bits_per_second = throughput(*words)
        assert bits_per_second < (1 + TOLERANCE) * RATE
        if bits_per_second > (1 - TOLERANCE) * RATE:
            return
    assert bits_per_second > (1 - TOLERANCE) * RATE


@pytest.fixture
def limited(lab: Lab, spare: Pod) -> Reply:
    """The spare pod of the first node with both limits, as containerd asks for them."""
    reply = add(lab, spare, **LIMITS)
    assert reply.status == 0, reply.text
    return reply


@other_pods
@protocols
def test_a_pod_receives_no_more_than_its_ingress_rate(
    lab: Lab, spare: Pod, limited: Reply, other: int, protocol: str
) -> None:
    source = lab.layout.pods[other]

    assert_limited(source.netns, spare.netns, address(limited.addresses), protocol)


@other_pods
@protocols
@pytest.mark.usefixtures("limited")
def test_a_pod_sends_no_more_than_its_egress_rate(
    lab: Lab, spare: Pod, other: int, protocol: str
) -> None:
    target = lab.layout.pods[other]

    assert_limited(spare.netns, target.netns, address(lab.addresses(target)), protocol)


def test_ipv6_and_the_node_itself_are_limited_too(lab: Lab, spare: Pod, limited: Reply) -> None:
    node = lab.layout.nodes[0]

    assert_limited(node.netns, spare.netns, address(limited.addresses, 6), "tcp")


@pytest.mark.parametrize("burst", [BURST_OF_CRIO, 8 * 64000])
def test_the_limit_holds_with_any_burst(lab: Lab, spare: Pod, burst: int) -> None:
    reply = add(lab, spare, ingressRate=RATE, ingressBurst=burst)
    source = lab.layout.pods[0]

    assert_limited(source.netns, spare.netns, address(reply.addresses), "tcp")


def test_a_limit_of_one_direction_is_none_of_the_other(lab: Lab, spare: Pod) -> None:
    reply = add(lab, spare, ingressRate=RATE, ingressBurst=BURST_OF_CONTAINERD)
    other = lab.layout.pods[0]

    sent = throughput(spare.netns, other.netns, address(lab.addresses(other)), "tcp")

    assert reply.status == 0, reply.text
    assert sent > 5 * RATE


@both_ways
def test_the_agents_sweep_and_check_know_a_limited_pod(lab: Lab, spare: Pod, alone: bool) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    reply = add(lab, spare, alone=alone, ingressRate=RATE, ingressBurst=BURST_OF_CONTAINERD)
    limits = {"bandwidth": {"ingressRate": RATE, "ingressBurst": BURST_OF_CONTAINERD}}
    with made_pod(lab, node) as never_attached:
        assert execute(lab, never_attached, "DEL").status == 0  # which sweeps

    checked = execute(
        lab, spare, "CHECK", alone=alone, prevResult=reply.document, runtimeConfig=limits
    )
    entries = {row["address"]: row["shaped"] for row in rows(lab, node, "endpoints")}
    deleted = execute(lab, spare, "DEL", alone=alone)

    assert checked.status == 0, checked.text
    assert [entries[one] for one in reply.addresses] == [True, True]
    assert deleted.status == 0
    assert differences(before, take(node)) == []


@pytest.mark.parametrize("end", ["receives", "sends"])
def test_check_finds_a_limit_that_is_gone(lab: Lab, spare: Pod, limited: Reply, end: str) -> None:
    node = lab.layout.nodes[0]
    netns, ifname = {
        "receives": (node.netns, limited.document["interfaces"][0]["name"]),
        "sends": (spare.netns, POD_IFNAME),
    }[end]
    with open_iproute(netns) as ipr:
        ipr.tc("del", index=ipr.link_lookup(ifname=ifname)[0], parent=TC_H_ROOT)

    checked = execute(
        lab, spare, "CHECK", prevResult=limited.document, runtimeConfig={"bandwidth": LIMITS}
    )

    assert checked.status == 1
    problems = [one for one in checked.document["details"].split("; ") if "limited" in one]
    assert problems == [f"what {POD_IFNAME} {end} is not limited to {RATE} bit/s"]


def test_a_rate_without_burst_is_refused_before_anything_is_made(lab: Lab, spare: Pod) -> None:
    node = lab.layout.nodes[0]
    before = take(node)

    refused = add(lab, spare, ingressRate=RATE)

    assert refused.document["code"] == INVALID
    assert differences(before, take(node)) == []
