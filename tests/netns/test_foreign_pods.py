# SPDX-License-Identifier: Apache-2.0
"""Pods whose addresses are outside of the cluster's networks, as other IPAM plugins give them: the
overlay is as closed for them as for others."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from netns.test_delegation import Ipam
from netns.test_overlay_guard import (
    COUNT,
    address,
    counted,
    datagram,
    nothing_heard,
    published,
    underlay,
    way_in,
    ways_in,
)
from pycni.lab.cluster import Lab
from pycni.lab.layout import Pod
from pycni.node import overlay_guard
from support.flows import FAMILIES, answering, ask
from support.labs import drops, made_pod
from support.plugin import execute
from support.underlay import ip
from support.waiting import wait_until

THEIRS = {4: "192.0.2.99", 6: "2001:db8:99::99"}
"""Published by another node."""

both_families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def foreign(lab: Lab, spare: Pod, tmp_path: Path) -> Iterator[dict[int, str]]:
    """The addresses of the spare pod, by family."""
    ipam = Ipam(tmp_path)
    added = execute(lab, spare, "ADD", env=ipam.path, ipam=ipam.conf(), ipMasq=False)
    assert added.status == 0, added.text
    yield {ip_address(one).version: one for one in added.addresses}
    assert execute(lab, spare, "DEL", env=ipam.path, ipam=ipam.conf()).status == 0


@ways_in
@both_families
def test_a_stranger_is_no_pod_of_another_node(
    lab: Lab, spare: Pod, foreign: dict[int, str], family: int, way: str
) -> None:
    node, other = lab.layout.nodes
    friend = node.pods[1]
    target = foreign[family]

    with (
        published(other, THEIRS[family], heard_by=node),
        way_in(lab, node, way) as send,
        counted(lab, node, overlay_guard.NODE_SOURCE),
        nothing_heard(
            spare.netns, target, friend=(friend.netns, address(lab, friend, family))
        ) as port,
    ):
        send([datagram(THEIRS[family], target, port)] * COUNT)


@ways_in
@both_families
def test_a_stranger_is_no_pod_of_this_node(
    lab: Lab, spare: Pod, foreign: dict[int, str], tmp_path: Path, family: int, way: str
) -> None:
    node = lab.layout.nodes[0]
    friend = node.pods[1]
    target = foreign[family]
    ipam = Ipam(tmp_path)

    with made_pod(lab, node) as claimed:
        added = execute(lab, claimed, "ADD", env=ipam.path, ipam=ipam.conf(34))
        assert added.status == 0, added.text
        before = drops(lab, node).get(("SPOOFED_SOURCE", "to_overlay"), 0)
        with (
            way_in(lab, node, way) as send,
            nothing_heard(
                spare.netns, target, friend=(friend.netns, address(lab, friend, family))
            ) as port,
        ):
            send([datagram(added.addresses[FAMILIES.index(family)], target, port)] * COUNT)
            wait_until(
                lambda: drops(lab, node).get(("SPOOFED_SOURCE", "to_overlay"), 0) == before + COUNT,
                "all are dropped",
            )
        assert execute(lab, claimed, "DEL", env=ipam.path, ipam=ipam.conf(34)).status == 0


@both_families
def test_a_stranger_is_no_other_node(
    lab: Lab, spare: Pod, foreign: dict[int, str], family: int
) -> None:
    node, other = lab.layout.nodes
    friend = node.pods[1]
    claimed = {4: underlay(other, 4), 6: THEIRS[6]}[family]

    with (
        published(other, THEIRS[6], heard_by=node),
        way_in(lab, node, "uplink") as send,
        counted(lab, node, overlay_guard.NODE_SOURCE),
        nothing_heard(
            spare.netns, foreign[family], friend=(friend.netns, address(lab, friend, family))
        ) as port,
    ):
        send([datagram(claimed, foreign[family], port)] * COUNT)


@both_families
def test_the_world_reaches_such_pods_by_a_route(
    lab: Lab, spare: Pod, foreign: dict[int, str], family: int
) -> None:
    node, target = lab.layout.nodes[0], foreign[family]
    ip(lab.layout.underlay_netns, "route", "add", target, "via", underlay(node, family))
    try:
        with answering(spare.netns, target) as (port, _):
            assert ask(lab.layout.underlay_netns, target, port)
    finally:
        ip(lab.layout.underlay_netns, "route", "del", target)


@both_families
def test_pods_of_this_node_reach_such_pods_by_the_stack_too(
    lab: Lab, spare: Pod, foreign: dict[int, str], family: int
) -> None:
    near = lab.layout.nodes[0].pods[0]
    with answering(spare.netns, foreign[family]) as (port, _):
        assert ask(near.netns, foreign[family], port) == address(lab, near, family)
