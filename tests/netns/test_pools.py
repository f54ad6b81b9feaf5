# SPDX-License-Identifier: Apache-2.0
"""Nodes with blocks of IPPools: their pods are reached, whatever block their address is of.

The Kubernetes API is a fake one on the third host. Blocks are small: 13 pods fill one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.cluster import IPAddress, IPNetwork
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode, Pod
from pycni.settings import load
from pycni.stores.kube import objects
from support.flood import unanswered
from support.labs import made_pod, prepared_lab, pycni, reboot, rows, within, write_settings
from support.plugin import Reply, execute
from support.waiting import wait_until
from unit.stores.kube_api import CLUSTER_NETWORKS, NODE_NETWORKS, NODES, POD_BLOCKS, Api, kubeconfig
from unit.stores.kube_pools import Pooled

PREFIX = 28
TRY_AGAIN, NOT_AVAILABLE, EXHAUSTED = 11, 50, 102


@dataclass
class World:
    """Two nodes, their pods, and who administers the cluster."""

    lab: Lab
    api: Api
    pooled: Pooled
    pods: ExitStack
    spare: dict[str, Pod] = field(default_factory=dict)
    """By node, a pod that could not be added."""
    added: dict[str, list[Pod]] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[LabNode, LabNode]:
        first, second, _ = self.lab.layout.nodes
        return first, second

    def add(self, node: LabNode) -> Reply:
        """One more pod of a node."""
        pod = self.spare.get(node.name) or self.pods.enter_context(made_pod(self.lab, node))
        self.spare[node.name] = pod
        reply = execute(self.lab, pod, "ADD")
        if reply.status == 0:
            del self.spare[node.name]
            self.added.setdefault(node.name, []).append(pod)
            self.addresses[pod.name] = reply.addresses
        return reply

    def add_until(self, node: LabNode, count: int) -> None:
        """As many pods of a node."""
        while len(self.added.get(node.name, ())) < count:
            reply = self.add(node)
            assert reply.status == 0, reply.text

    def blocks(self, node: LabNode) -> list[IPNetwork]:
        """What others know of a node: IPv4 only."""
        document = self.api.objects.get(NODE_NETWORKS, node.name) or {}
        spec = objects.fields(document.get("spec"))
        found = (*objects.networks(spec, "podCIDRs"), *objects.networks(spec, "blocks"))
        return [one for one in found if one.version == 4]

    def used(self, node: LabNode) -> set[IPNetwork]:
        """Blocks that pods have addresses of."""
        found: list[IPAddress] = [ip_address(one) for pod in self.added[node.name]
                                  for one in self.addresses[pod.name]]  # fmt: skip
        return {block for block in self.blocks(node) if any(one in block for one in found)}

    def start(self, node: LabNode) -> None:
        self.lab.start_agent(node)
        cluster.wait_for_agent(self.lab, node)


@pytest.fixture
def world() -> Iterator[World]:
    with (
        prepared_lab(nodes=3, node_prefix={"ipv4": PREFIX, "ipv6": 64}) as lab,
        ExitStack() as undo,
    ):
        first, second, third = lab.layout.nodes
        api = Api(host=str(third.underlay[0].ip))
        api.make_node = lambda _: None
        pooled = Pooled(api)
        document = objects.cluster_network(load(first.settings_path).cluster)
        spec = objects.fields(document["spec"]) | {"ipam": "pool"}
        pooled.put(CLUSTER_NETWORKS, "default", document | {"spec": spec})
        pooled.pool("four", "10.244.0.0/25")
        pooled.pool("six", "fd00:10:244::/60")
        within(third.netns, api.start)
        undo.callback(api.stop)
        file = kubeconfig(Path(lab.layout.directory), api)
        pods = undo.enter_context(ExitStack())
        world = World(lab, api, pooled, pods)
        for node in (first, second):
            pooled.node(node.name)
            write_settings(node, store=f"kube:{file}")
            world.start(node)
        yield world


def unreached(world: World, source: Pod, targets: list[Pod]) -> list[Any]:
    addresses = [one for target in targets for one in world.addresses[target.name]]
    return unanswered(world.lab, source.netns, addresses)


def wait_until_known(world: World, node: LabNode, *, by: LabNode) -> None:
    """Until the one other node has all blocks of a node, and its network of IPv6."""
    wait_until(
        lambda: len(rows(world.lab, by, "remotes")) == len(world.blocks(node)) + 1,
        f"{by.name} knows all blocks of {node.name}",
    )


def test_pods_of_all_blocks_reach_each_other_in_both_families(world: World) -> None:
    first, second = world.nodes
    for node in world.nodes:
        world.add_until(node, 20)

    assert [len(world.used(node)) for node in world.nodes] == [2, 2]
    assert not set(world.blocks(first)) & set(world.blocks(second))
    wait_until_known(world, second, by=first)
    here, there = (world.added[node.name] for node in world.nodes)
    for source in (here[0], here[-1]):
        assert unreached(world, source, [*there, here[1], here[-2]]) == []
    for pod in (here[0], here[-1]):
        assert unanswered(world.lab, first.netns, world.addresses[pod.name]) == []
        assert unanswered(world.lab, second.netns, world.addresses[pod.name]) == []
    for node in world.nodes:
        status = pycni(node, "status")
        assert status.returncode == 0, status.stdout.decode()
    listed = {row["name"]: row for row in world.lab.pycni(first, "nodes")}
    assert {ip_network(one) for one in listed[second.name]["pod_cidrs"]} >= set(
        world.blocks(second)
    )


def test_a_server_that_is_away_stops_growth_and_nothing_else(world: World) -> None:
    first, second = world.nodes
    world.add_until(second, 1)
    world.add_until(first, 10)
    wait_until(lambda: len(world.blocks(first)) == 2, "the node has grown")
    wait_until_known(world, first, by=second)
    world.api.stop()

    world.add_until(first, 26)
    refused = world.add(first)

    assert refused.document["code"] == TRY_AGAIN, refused.text
    wait_until(lambda: "does not answer" in world.add(first).text, "it is said why", seconds=60.0)
    status = execute(world.lab, world.added[first.name][0], "STATUS", cniVersion="1.1.0")
    assert status.document["code"] == NOT_AVAILABLE, status.text
    assert unreached(world, world.added[second.name][0], world.added[first.name]) == []

    within(world.lab.layout.nodes[2].netns, world.api.start)
    wait_until(lambda: world.add(first).status == 0, "another block is claimed", seconds=60.0)
    assert len(world.used(first)) == 3
    wait_until(
        lambda: unreached(world, world.added[second.name][0], world.added[first.name]) == [],
        "the other node knows it",
        seconds=60.0,
    )


def test_a_full_pool_is_named_to_the_runtime_and_to_people(world: World) -> None:
    first, _ = world.nodes
    world.pooled.pool("four", "10.244.0.0/25", disabled=True)
    world.add_until(first, 13)

    refused = world.add(first)

    assert refused.document["code"] == EXHAUSTED, refused.text
    assert "four is disabled" in refused.text
    assert "make another IPPool" in refused.text
    status = execute(world.lab, world.added[first.name][0], "STATUS", cniVersion="1.1.0")
    assert status.document["code"] == NOT_AVAILABLE
    assert "four is disabled" in status.text
    found = {row["name"]: row for row in json.loads(pycni(first, "status", "-o", "json").stdout)}
    assert "four is disabled" in found["pools"]["cause"]
    listed = {row["name"]: row for row in world.lab.pycni(first, "pools")}
    assert (listed["four"]["state"], listed["four"]["claimed"]) == ("disabled", 2)

    world.pooled.pool("more", "10.244.4.0/27")
    wait_until(lambda: world.add(first).status == 0, "the new pool is used", seconds=90.0)


def test_blocks_outlive_agent_and_boot_with_and_without_the_server(world: World) -> None:
    first, second = world.nodes
    world.add_until(second, 1)
    world.add_until(first, 20)
    before = world.blocks(first)
    world.lab.stop_agent(first, kill=True)
    world.start(first)
    assert world.blocks(first) == before
    assert unreached(world, world.added[second.name][0], world.added[first.name]) == []
    wait_until((first.directory / "state" / "nodes.jsonl").exists, "the list is on disk")

    world.api.stop()
    reboot(world.lab, first)
    world.added.pop(first.name)
    world.start(first)
    world.add_until(first, 20)

    assert len(world.used(first)) == 2
    assert unreached(world, world.added[second.name][0], world.added[first.name]) == []


def rob(world: World, node: LabNode, thief: str) -> IPNetwork:
    """The node's Node is made anew, the garbage collector comes, and another node is faster to
    claim its first block."""
    first = world.blocks(node)[0]
    owner = world.api.objects.get(NODES, thief) or {}
    claim = objects.pod_block(first, thief, str(owner["metadata"]["uid"]))
    world.pooled.put(POD_BLOCKS, objects.block_name(first), claim)
    world.pooled.node(node.name)
    world.pooled.collect_garbage()
    return first


def status_row(node: LabNode, name: str) -> dict[str, str] | None:
    found = json.loads(pycni(node, "status", "-o", "json").stdout)
    return next((row for row in found if row["name"] == name), None)


@pytest.mark.parametrize("restarts", [False, True], ids=["a living agent", "one that starts"])
def test_a_node_that_lost_its_first_block_adds_no_pod_until_it_has_it_again(
    world: World, *, restarts: bool
) -> None:
    first, second = world.nodes
    world.add_until(second, 1)
    world.add_until(first, 10)
    wait_until(lambda: len(world.blocks(first)) == 2, "the node has grown")
    wait_until((first.directory / "state" / "nodes.jsonl").exists, "the list is on disk")
    before = world.blocks(first)
    if restarts:
        world.lab.stop_agent(first, kill=True)
    lost = rob(world, first, second.name)
    if restarts:
        world.start(first)

    pod = world.added[first.name][0]
    wait_until(
        lambda: execute(world.lab, pod, "STATUS", cniVersion="1.1.0").status != 0,
        "the runtime is told",
        seconds=60.0,
    )
    status = execute(world.lab, pod, "STATUS", cniVersion="1.1.0")
    assert status.document["code"] == NOT_AVAILABLE, status.text
    assert "lost its place" in status.text
    refused = world.add(first)
    assert refused.document["code"] == NOT_AVAILABLE, refused.text
    assert execute(world.lab, world.added[first.name].pop(), "DEL").status == 0
    row = status_row(first, "place")
    assert row is not None
    assert str(lost) in row["cause"] or "its pods have addresses" in row["cause"]
    assert world.pooled.claims()[lost] == second.name

    world.api.objects.delete(POD_BLOCKS, objects.block_name(lost))

    wait_until(lambda: world.add(first).status == 0, "pods are added again", seconds=90.0)
    wait_until(
        lambda: set(world.blocks(first)) == set(before), "its blocks are published", seconds=60.0
    )
    assert status_row(first, "place") is None
    wait_until(
        lambda: unreached(world, world.added[second.name][0], world.added[first.name]) == [],
        "the other node knows it",
        seconds=60.0,
    )


def test_a_node_that_is_torn_down_frees_its_blocks(world: World) -> None:
    first, second = world.nodes
    world.add_until(first, 10)
    wait_until(lambda: len(world.blocks(first)) == 2, "the node has grown")
    for pod in world.added[first.name]:
        assert execute(world.lab, pod, "DEL").status == 0
    world.lab.stop_agent(first)

    with suppress(ProcessLookupError):
        assert pycni(first, "teardown", "--yes").returncode == 0

    assert set(world.pooled.claims().values()) == {second.name}
