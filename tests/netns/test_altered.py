# SPDX-License-Identifier: Apache-2.0
"""What others do to a pod's link after its ADD: limits by Debian's plugins, another MAC."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from netns.test_chained import BURST, DEBIAN, RATE, Chain
from netns.test_rate_limits import address, assert_limited
from pycni.dataplane import maps
from pycni.kernel import nft
from pycni.lab.cluster import Lab, wait_for_agent
from pycni.lab.layout import (
    NODE_UPLINK,
    POD_IFNAME,
    LabNode,
    Pod,
)
from pycni.settings import load
from support.flood import unanswered
from support.kernel import open_iproute
from support.labs import TUNING_STATE, made_pod, rows, within
from support.snapshot import differences, take
from support.waiting import wait_until

NEW_MAC = "02:00:00:00:00:42"
DROP_INVALID = """
table inet strict {
    chain forward { type filter hook forward priority 0; ct state invalid drop; }
}
"""
BOTH = {"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST}
LIMITS = {"type": "bandwidth", **BOTH}
TUNING = {"type": "tuning", "mac": NEW_MAC}

pytestmark = pytest.mark.skipif(
    not (DEBIAN / "bandwidth").exists(), reason="missing: containernetworking-plugins"
)
each_family = pytest.mark.parametrize("family", [4, 6])


def entries(lab: Lab, chain: Chain) -> list[dict[str, Any]]:
    """The pod's rows of the endpoints table."""
    node = lab.layout.node(chain.pod.node)
    return [row for row in rows(lab, node, "endpoints") if row["address"] in chain.addresses]


def is_all(lab: Lab, chain: Chain, **wanted: object) -> bool:
    found = entries(lab, chain)
    assert len(found) == len(chain.addresses)
    return all(row[key] == value for row in found for key, value in wanted.items())


@pytest.fixture
def limited(lab: Lab, spare: Pod) -> Iterator[Chain]:
    """The spare pod, with Debian's limits both ways; the agent has seen them."""
    chain = Chain(lab, spare, LIMITS, tcx=True)
    assert chain.add() == [0, 0]
    wait_until(lambda: is_all(lab, chain, shaped=True, queued=True), "the agent sees the limits")
    yield chain
    assert set(chain.delete()) == {0}


@contextmanager
def no_agent(lab: Lab, node: LabNode) -> Iterator[None]:
    lab.stop_agent(node)
    try:
        yield
    finally:
        lab.start_agent(node)
        wait_for_agent(lab, node)


def forget_neighbours(node: LabNode) -> None:
    """What a node has learnt ages, and later tests compare it with before."""
    with open_iproute(node.netns) as ipr:
        (uplink,) = ipr.link_lookup(ifname=NODE_UPLINK)
        for family in (socket.AF_INET, socket.AF_INET6):
            for entry in ipr.get_neighbours(family=family, ifindex=uplink):
                ipr.neigh("del", family=family, ifindex=uplink, dst=entry.get("NDA_DST"))


@each_family
@pytest.mark.parametrize("other", [0, -1], ids=["same node", "other node"])
def test_a_bandwidth_plugin_limits_both_directions(
    lab: Lab, limited: Chain, other: int, family: int
) -> None:
    pod, peer = limited.pod, lab.layout.pods[other]

    assert_limited(peer.netns, pod.netns, address(limited.addresses, family), "tcp")
    assert_limited(pod.netns, peer.netns, address(lab.addresses(peer), family), "tcp")


def test_a_limited_pod_reaches_and_is_reached_as_before(lab: Lab, limited: Chain) -> None:
    """Its packets take the way through the host's stack, which filters reverse paths or not."""
    node, other = lab.layout.nodes
    everyone = [address for pod in lab.layout.pods for address in lab.addresses(pod)]
    hosts = [str(one.ip) for each in (node, other) for one in each.underlay]
    gateways = [ip["gateway"] for ip in limited.result["ips"]]

    reached = unanswered(lab, limited.pod.netns, everyone + hosts + gateways)
    from_pods = [unanswered(lab, pod.netns, limited.addresses) for pod in lab.layout.pods]
    from_node = unanswered(lab, node.netns, limited.addresses)
    forget_neighbours(node)

    assert (reached, from_node) == ([], [])
    assert from_pods == [[]] * len(from_pods)


def test_a_host_that_drops_what_it_cannot_track_drops_none_of_it(lab: Lab, limited: Chain) -> None:
    """As kube-proxy has it dropped."""
    node, peer = lab.layout.node(limited.pod.node), lab.layout.pods[-1]
    within(node.netns, lambda: nft.run(DROP_INVALID, what="the test's table"))
    try:
        assert_limited(limited.pod.netns, peer.netns, address(lab.addresses(peer)), "tcp")
    finally:
        within(node.netns, lambda: nft.run("delete table inet strict", what="the test's table"))


def test_without_an_agent_the_next_check_sees_the_limits(lab: Lab, spare: Pod) -> None:
    with no_agent(lab, lab.layout.node(spare.node)):
        chain = Chain(lab, spare, LIMITS, tcx=True)
        assert chain.add() == [0, 0]
        before = is_all(lab, chain, shaped=False, queued=False)

        checked = chain.check()

        assert (before, checked) == (True, 0)
        assert is_all(lab, chain, shaped=True, queued=True)
        assert chain.delete() == [0, 0]


def test_an_agent_that_starts_sees_them(lab: Lab, spare: Pod) -> None:
    with no_agent(lab, lab.layout.node(spare.node)):
        chain = Chain(lab, spare, LIMITS, TUNING, tcx=True)
        assert chain.add() == [0, 0, 0]

    wait_until(
        lambda: is_all(lab, chain, shaped=True, queued=True, mac=NEW_MAC),
        "the agent sees what was done without it",
    )
    assert chain.delete() == [0, 0, 0]


def test_a_limit_that_goes_is_none(lab: Lab, limited: Chain) -> None:
    with open_iproute(lab.layout.node(limited.pod.node).netns) as ipr:
        index = entries(lab, limited)[0]["ifindex"]
        ipr.tc("del", "ingress", index)
        ipr.tc("del", "tbf", index, rate=RATE // 8, burst=BURST // 8, limit=BURST // 8)
    wait_until(lambda: is_all(lab, limited, shaped=False, queued=False), "the agent sees it go")

    assert unanswered(lab, lab.layout.pods[0].netns, limited.addresses) == []
    limited.plugins = ()  # its DEL would look for what is gone


def test_frames_go_to_the_mac_that_the_pod_has_now(lab: Lab, spare: Pod) -> None:
    chain = Chain(lab, spare, TUNING)
    assert chain.add() == [0, 0]
    wait_until(lambda: is_all(lab, chain, mac=NEW_MAC), "the agent sees the MAC")

    checked = chain.check()
    everyone = [lab.layout.node(spare.node).netns, *(pod.netns for pod in lab.layout.pods)]
    unreached = [unanswered(lab, one, chain.addresses) for one in everyone]

    assert checked == 0
    assert unreached == [[]] * len(everyone)
    assert chain.delete() == [0, 0]


def test_nothing_of_limits_and_macs_stays(lab: Lab, spare: Pod) -> None:
    node = lab.layout.node(spare.node)
    before = take(node)
    chain = Chain(lab, spare, LIMITS, TUNING, tcx=True)
    assert chain.add() == [0, 0, 0]
    wait_until(lambda: is_all(lab, chain, queued=True, mac=NEW_MAC), "the agent sees both")

    assert chain.delete() == [0, 0, 0]

    assert differences(before, take(node)) == []


def test_a_mac_that_the_agent_follows_keeps_no_namespace(lab: Lab) -> None:
    """The host end goes with the pod's, that is when the namespace does."""
    node = lab.layout.nodes[0]
    with made_pod(lab, node) as pod:
        chain = Chain(lab, pod, TUNING)
        assert chain.add() == [0, 0]
        wait_until(lambda: is_all(lab, chain, mac=NEW_MAC), "the agent sees the MAC")

    wait_until(lambda: entries(lab, chain) == [], "the link and the entries go")
    assert chain.delete()[-1] == 0
    (TUNING_STATE[0] / f"{pod.name}_{POD_IFNAME}.json").unlink(missing_ok=True)


def test_a_check_finds_a_missing_entry_still(lab: Lab, limited: Chain) -> None:
    node = lab.layout.node(limited.pod.node)
    with maps.open_endpoints(load(node.settings_path).pin_root) as table:
        assert table.remove(ip_address(limited.addresses[0]))

    assert limited.check() != 0
