# SPDX-License-Identifier: Apache-2.0
"""Addresses that are given back: nothing of theirs is left for the next pod, and they rest."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any

import pytest

from pycni import locks
from pycni.attachments import reclaim
from pycni.attachments.reclaim import FEW
from pycni.cluster import IPAddress
from pycni.cni import plugin
from pycni.dataplane import maps
from pycni.dataplane.maps import Endpoint
from pycni.kernel.ctnetlink import Ctnetlink
from pycni.kernel.rtnl import Rtnl
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, WORLD, LabNode, Pod
from pycni.names import AttachmentKey
from pycni.node.record import Node
from pycni.pods.endpoints import BATCH
from pycni.pods.resting import Resting
from pycni.settings import load
from support.flows import FAMILIES, answering, ask
from support.labs import made_pod, setup, within
from support.plugin import Reply, execute, invocation, network
from support.snapshot import differences, take
from support.waiting import DEADLINE, wait_until

TAKEN_BACK, LEFT = "taken back", "left by its caller"
"""In the agent's log."""
GONE = 2**31 - 7
"""The index of no link."""
MAC = "02:00:00:00:00:09"

both_families = pytest.mark.parametrize("family", FAMILIES)
both_ways = pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without one"])


@pytest.fixture
def node(lab: Lab) -> LabNode:
    return lab.layout.nodes[0]


def of_family(family: int, addresses: list[str]) -> str:
    return next(one for one in addresses if ip_address(one).version == family)


def connect_to_the_world(lab: Lab, pod: Pod, family: int) -> None:
    """So that the node tracks a connection that it masquerades."""
    target = of_family(family, [str(one) for one in WORLD])
    with answering(lab.layout.underlay_netns, target) as (port, _):
        assert ask(pod.netns, target, port) is not None


def connections(node: LabNode, address: str) -> int:
    """How many the node tracks that the address has begun or answers."""

    def count() -> int:
        with Ctnetlink() as table:
            return len(list(table.entries_of([ip_address(address)])))

    return within(node.netns, count)


def asking(*addresses: str) -> dict[str, Any]:
    return {"runtimeConfig": {"ips": list(addresses)}}


@both_ways
@both_families
def test_a_del_forgets_the_connections_of_the_addresses(
    lab: Lab, node: LabNode, spare: Pod, family: int, alone: bool
) -> None:
    address = of_family(family, execute(lab, spare, "ADD", alone=alone).addresses)
    connect_to_the_world(lab, spare, family)
    other = lab.layout.pods[0]
    connect_to_the_world(lab, other, family)
    before = connections(node, address)

    assert execute(lab, spare, "DEL", alone=alone).status == 0

    assert before > 0
    wait_until(lambda: connections(node, address) == 0, "they are forgotten")
    assert connections(node, of_family(family, lab.addresses(other))) > 0


@both_families
def test_who_asks_for_an_address_that_rests_has_none_of_its_connections(
    lab: Lab, node: LabNode, spare: Pod, family: int
) -> None:
    first = execute(lab, spare, "ADD").addresses
    connect_to_the_world(lab, spare, family)
    address = of_family(family, first)
    before = connections(node, address)
    with made_pod(lab, node) as other:
        assert execute(lab, spare, "DEL").status == 0

        again = execute(lab, other, "ADD", **asking(*first))

        assert again.addresses == first, again.text
        assert (before > 0, connections(node, address)) == (True, 0)
        connect_to_the_world(lab, other, family)
        assert connections(node, address) > 0  # nobody forgets them later
        assert execute(lab, other, "DEL").status == 0


@both_families
def test_setup_forgets_what_a_killed_agent_did_not_but_nothing_of_living_pods(
    lab: Lab, node: LabNode, spare: Pod, family: int
) -> None:
    with made_pod(lab, node) as living:
        dead = of_family(family, execute(lab, spare, "ADD").addresses)
        taken = execute(lab, living, "ADD").addresses
        assert execute(lab, living, "DEL").status == 0
        assert execute(lab, living, "ADD", **asking(*taken)).addresses == taken
        lab.stop_agent(node, kill=True)
        try:
            assert execute(lab, spare, "DEL").status == 0
            ask(node.netns, dead, 9)
            connect_to_the_world(lab, living, family)
            alive = of_family(family, taken)
            before = [connections(node, one) for one in (dead, alive)]

            setup(node)
            after = [connections(node, one) for one in (dead, alive)]
        finally:
            lab.start_agent(node)
            cluster.wait_for_agent(lab, node)

        assert execute(lab, living, "DEL").status == 0
    assert min(before) > 0
    assert after == [0, before[1]]


@both_ways
def test_an_address_rests_while_others_are_free(
    lab: Lab, node: LabNode, spare: Pod, alone: bool
) -> None:
    """In a pool of three the rotation alone would come back to the first at once."""
    cidr = Node.load(load(node.settings_path)).pod_cidrs[0]
    few = {"subnet": str(cidr), "rangeStart": str(cidr[100]), "rangeEnd": str(cidr[102])}
    config: dict[str, Any] = {"ipam": {"type": "pycni", "ranges": [[few]]}}
    taken = []
    with made_pod(lab, node) as keeper:
        kept = execute(lab, keeper, "ADD", alone=alone, **config)
        assert kept.status == 0, kept.text
        for _ in range(4):
            taken.append(_first(execute(lab, spare, "ADD", alone=alone, **config)))
            assert execute(lab, spare, "DEL", alone=alone).status == 0
        assert execute(lab, keeper, "DEL", alone=alone).status == 0

    assert len(set(taken[:2])) == 2
    assert taken[2:] == taken[:2]  # when all rest, the one that rested longest
    assert set(Resting(load(node.settings_path).run_dir)) >= set(map(ip_address, taken))


def _first(reply: Reply) -> str:
    assert reply.status == 0, reply.text
    return reply.addresses[0]


@pytest.fixture
def orphans(node: LabNode) -> Iterator[list[IPAddress]]:
    """Entries of pods that ended while nobody looked."""
    settings = load(node.settings_path)
    base = Node.load(settings).pod_cidrs[1].network_address + 5000
    addresses = [base + number for number in range(2 * BATCH + 10)]
    with maps.open_endpoints(settings.pin_root) as table:
        for address in addresses:
            assert table.insert(address, Endpoint(GONE, MAC))
        yield addresses
        for address in addresses:
            table.remove(address)


def left(node: LabNode, orphans: list[IPAddress]) -> int:
    with maps.open_endpoints(load(node.settings_path).pin_root) as table:
        return sum(table.get(address) is not None for address in orphans)


@both_ways
def test_a_del_without_its_link_sweeps_a_few_orphans_of_others(
    lab: Lab, node: LabNode, spare: Pod, orphans: list[IPAddress], alone: bool
) -> None:
    counts = []
    for _ in range(2):
        assert execute(lab, spare, "DEL", alone=alone).status == 0
        counts.append(left(node, orphans))

    assert counts == [len(orphans) - FEW, len(orphans) - 2 * FEW]


def test_adds_and_dels_of_pods_leave_the_orphans_of_others_alone(
    lab: Lab, node: LabNode, spare: Pod, orphans: list[IPAddress]
) -> None:
    assert execute(lab, spare, "ADD").status == 0
    assert execute(lab, spare, "DEL").status == 0

    assert left(node, orphans) == len(orphans)


@pytest.mark.parametrize("way", ["a starting agent", "setup", "GC"])
def test_all_orphans_are_swept(
    lab: Lab, node: LabNode, spare: Pod, orphans: list[IPAddress], way: str
) -> None:
    match way:
        case "a starting agent":
            lab.stop_agent(node, kill=True)
            lab.start_agent(node)
            cluster.wait_for_agent(lab, node)
        case "setup":
            setup(node)
        case "GC":
            assert execute(lab, spare, "GC", cniVersion="1.1.0").status == 0

    wait_until(lambda: left(node, orphans) == 0, "they are swept")


def test_no_add_or_del_waits_for_a_sweep(
    lab: Lab, node: LabNode, spare: Pod, orphans: list[IPAddress]
) -> None:
    """Of one that is stuck in its first batch."""
    settings, is_stuck, may_go_on = load(node.settings_path), threading.Event(), threading.Event()

    def stay(_: object) -> None:
        is_stuck.set()
        may_go_on.wait()

    def sweep() -> int:
        with Rtnl() as ipr:
            return reclaim.sweep(ipr, settings, forget=stay)

    with ThreadPoolExecutor() as pool:
        swept = pool.submit(within, node.netns, sweep)
        try:
            assert is_stuck.wait(DEADLINE)
            done = [execute(lab, spare, command).status for command in ("ADD", "DEL")]
            unswept = left(node, orphans)
        finally:
            may_go_on.set()

    assert done == [0, 0]
    assert unswept == len(orphans)
    assert swept.result() == len(orphans)


def ask_and_leave(lab: Lab, node: LabNode, pod: Pod) -> None:
    """An ADD whose plugin is killed as soon as the agent has the call."""
    _, variables = invocation(lab, pod, "ADD")
    ports = [{"hostPort": 18095, "containerPort": 80, "protocol": "tcp"}]
    conf = network(lab, runtimeConfig={"portMappings": ports})
    environment = b"\0".join(f"{key}={value}".encode() for key, value in variables.items())
    netns = plugin.open_netns(variables["CNI_NETNS"])
    with ExitStack() as stack:
        agent = plugin.connect(str(load(node.settings_path).socket_path))
        stack.callback(agent.close)
        plugin.send(agent, plugin.pack(environment, json.dumps(conf).encode()), netns)


def said(node: LabNode, *phrases: str) -> int:
    """How often the agent's log has one of them."""
    log = node.log_path.read_text()
    return sum(log.count(phrase) for phrase in phrases)


def test_an_add_whose_caller_is_gone_leaves_nothing(lab: Lab, node: LabNode, spare: Pod) -> None:
    before, told = take(node), said(node, TAKEN_BACK, LEFT)

    ask_and_leave(lab, node, spare)

    wait_until(lambda: said(node, TAKEN_BACK, LEFT) > told, "the agent undoes it")
    assert differences(before, take(node)) == []
    assert execute(lab, spare, "ADD").status == 0


def test_an_add_that_was_left_does_not_begin_after_its_del(
    lab: Lab, node: LabNode, spare: Pod
) -> None:
    """Another attachment may be made in the same namespace by then."""
    key = AttachmentKey(network(lab)["name"], spare.name, POD_IFNAME)
    taken_back, left = said(node, TAKEN_BACK), said(node, LEFT)

    with locks.attachment_lock(load(node.settings_path).run_dir, key.digest):
        ask_and_leave(lab, node, spare)
        time.sleep(0.5)

    wait_until(lambda: said(node, LEFT) > left, "the agent refuses it")
    assert said(node, TAKEN_BACK) == taken_back
