# SPDX-License-Identifier: Apache-2.0
"""Nodes with a router between them that has routes to the pods: packets without VXLAN pass it, if
the settings say so, and nobody else is believed.

Nodes one and two are on one link, node three is behind the router.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.l2 import Ether

from netns.test_direct_attacks import Scene, ping
from pycni.lab.layout import BRIDGE, LabNode
from pycni.node.record import Node
from pycni.settings import load
from pycni.stores import DIRECT, ROUTED, VXLAN, open_store
from support.flood import Flood
from support.flows import FAMILIES, answering, ask, pumping
from support.labs import rows, setup, write_settings
from support.matrix import exchange_between, plan
from support.on_link import UNDERLAYS, Nodes, nodes_on_link
from support.underlay import ip
from support.waiting import wait_until

UPLINK_MTU = 1500
NARROW = 1400

both_families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module", params=UNDERLAYS, ids=lambda underlay: f"IPv{underlay} underlay")
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    with nodes_on_link(request.param, routers_know_pods=True) as made:
        route_to_pods(made)
        wait_for(made, DIRECT)
        yield made


def route_to_pods(nodes: Nodes, *options: object) -> None:
    """By the router, as its administrator would write them."""
    for node in nodes.lab.layout.nodes:
        for cidr in Node.load(load(node.settings_path)).pod_cidrs:
            there = nodes.own(node, cidr.version)
            ip(nodes.lab.layout.underlay_netns, "route", "replace", cidr, "via", there,
               "dev", BRIDGE, *options)  # fmt: skip


def wait_for(nodes: Nodes, mode: str) -> None:
    """Until nodes one and three send to each other so."""
    one, three = nodes.vtep(nodes.one), nodes.vtep(nodes.routed)

    def ready() -> bool:
        return (nodes.modes(nodes.one)[three], nodes.modes(nodes.routed)[one]) == (mode, mode)

    wait_until(ready, f"packets by the router leave {mode}")


def accepted(node: LabNode) -> tuple[str, ...]:
    settings = load(node.settings_path)
    store = open_store(settings.store_url, settings.cluster, create=False)
    return next(one.accepts for one in store.nodes() if one.name == node.name)


@both_families
@pytest.mark.parametrize(("source", "target"), [(0, 4), (4, 0), (0, 2)])
def test_all_sizes_and_kinds_arrive(nodes: Nodes, family: int, source: int, target: int) -> None:
    pods = nodes.lab.layout.pods
    before = [nodes.left_directly(node) for node in nodes.lab.layout.nodes]

    done = exchange_between(
        pods[source].netns, pods[target].netns, nodes.pod(pods[target], family),
        plan(family, UPLINK_MTU),
    )  # fmt: skip

    assert done.came == done.sent
    assert done.bad == []
    left = [nodes.left_directly(node) for node in nodes.lab.layout.nodes]
    assert left[source // 2] - before[source // 2] > len(done.sent) / 2


@both_families
def test_nodes_reach_pods_and_pods_reach_nodes(nodes: Nodes, family: int) -> None:
    pod = nodes.lab.layout.pods[4]
    with pumping(nodes.one.netns, pod.netns, nodes.pod(pod, family)) as send:
        assert send() is not None
    to = nodes.own(nodes.one, family)
    # routers know a node by its VTEP; for VXLAN an IPv6 underlay cuts nothing (docs/direct.md)
    size = 1200 if (family, nodes.underlay) == (4, 6) else 5000
    with answering(nodes.one.netns, to) as (port, _):
        if family == 6:
            ask(pod.netns, to, port, size=size)  # its sender may be told to cut it smaller
        assert ask(pod.netns, to, port, size=size) == nodes.pod(pod, family)


def test_it_is_no_fault(nodes: Nodes) -> None:
    modes = {row["name"]: row["mode"] for row in nodes.lab.pycni(nodes.one, "nodes")}
    found = {row["name"]: row for row in nodes.lab.pycni(nodes.one, "status")}

    assert modes == {"node1": None, "node2": "direct", "node3": "direct"}
    assert found["direct"]["state"] == "ok"
    assert accepted(nodes.one) == (DIRECT, ROUTED)


@both_families
def test_pods_are_told_of_a_narrow_path_behind_the_router(nodes: Nodes, family: int) -> None:
    """By the router, which sees their packets as they are."""
    source, target = nodes.lab.layout.pods[1], nodes.lab.layout.pods[5]
    route_to_pods(nodes, "mtu", "lock", NARROW)
    try:
        with pumping(source.netns, target.netns, nodes.pod(target, family)) as send:
            assert send() is not None
    finally:
        route_to_pods(nodes)


@both_families
@pytest.mark.parametrize(
    ("sender", "source", "reason"),
    [
        ("a stranger", "a pod of three", "WRONG_NEIGHBOUR"),
        ("node two", "a pod of three", "WRONG_NEIGHBOUR"),
        ("the router", "a pod of two", "WRONG_NEIGHBOUR"),
        ("the router", "a pod of one", "SPOOFED_INNER"),
        ("the router", "nobody", "SPOOFED_INNER"),
    ],
)
def test_only_the_router_is_believed_and_only_for_what_is_behind_it(
    nodes: Nodes, family: int, sender: str, source: str, reason: str
) -> None:
    scene = Scene(nodes, family)
    head = Ether(src=scene.mac(sender), dst=scene.mac("node one"))

    scene.refused([head / ping(scene.address(source), scene.address("the target"))], reason)


def test_without_agents_the_kernel_finds_the_router(nodes: Nodes) -> None:
    pods, ends = nodes.lab.layout.pods, (nodes.one, nodes.routed)
    with nodes.without_agents(*ends):
        before = nodes.left_directly(nodes.one)
        for node in ends:
            ip(node.netns, "neigh", "flush", "all")
        with Flood(pods[0], nodes.lab.addresses(pods[4]), count=500) as flood:
            lost = flood.lost()

    assert set(lost.values()) == {0}
    assert nodes.left_directly(nodes.one) - before > 500


@pytest.mark.parametrize("knows", [False, True])
def test_it_is_switched_under_traffic(nodes: Nodes, *, knows: bool) -> None:
    """Off, and on again, node by node."""
    pods = nodes.lab.layout.pods
    with (
        Flood(pods[0], nodes.lab.addresses(pods[4]), count=500) as there,
        Flood(pods[4], nodes.lab.addresses(pods[0]), count=500) as back,
    ):
        for node in nodes.lab.layout.nodes:
            write_settings(node, routers_know_pods=knows)
            setup(node)
        wait_for(nodes, DIRECT if knows else VXLAN)
        lost = [*there.lost().values(), *back.lost().values()]

    assert set(lost) == {0}
    assert accepted(nodes.one) == ((DIRECT, ROUTED) if knows else (DIRECT,))
    takes = Node.load(load(nodes.one.settings_path))
    assert takes.takes_routed
    assert (takes.routed_until > 0) != knows
    three = nodes.vtep(nodes.routed)
    (known,) = (row for row in rows(nodes.lab, nodes.one, "vteps") if row["vtep"] == three)
    assert known["routed"] == knows
