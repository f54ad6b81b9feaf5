# SPDX-License-Identifier: Apache-2.0
"""The agent dead, dying or hung: packets flow, and the plugin does the work itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from support.flood import Flood, unanswered
from support.kernel import open_iproute
from support.labs import agent_hung, made_lab, made_pod, pycni, rows
from support.plugin import Reply, execute
from support.snapshot import differences, take
from support.waiting import wait_until, wait_until_none

FLOOD = 1000
FEW_SECONDS = 5.0
"""The plugin waits one second for a hung agent, then does the work."""
TRY_AGAIN = 11


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=2) as made:
        yield made


@contextmanager
def agents_dead(lab: Lab) -> Iterator[None]:
    for node in lab.layout.nodes:
        lab.stop_agent(node, kill=True)
    try:
        yield
    finally:
        for node in lab.layout.nodes:
            lab.start_agent(node)
        for node in lab.layout.nodes:
            cluster.wait_for_agent(lab, node)


def test_no_packet_is_lost_when_both_agents_are_killed(lab: Lab) -> None:
    source, target = lab.layout.pods[0], lab.layout.pods[-1]
    assert source.node != target.node
    with Flood(source, lab.addresses(target), count=FLOOD) as flood, agents_dead(lab):
        assert flood.flowing
        lost = flood.lost()

    assert lost == dict.fromkeys(lab.addresses(target), 0)


def test_tables_filters_and_pins_outlive_the_agents(lab: Lab) -> None:
    before = [take(node) for node in lab.layout.nodes]

    with agents_dead(lab):
        after = [take(node) for node in lab.layout.nodes]

    for one, other in zip(before, after, strict=True):
        assert differences(one, other) == []


def test_the_plugin_works_with_the_agents_dead(lab: Lab) -> None:
    node, other = lab.layout.nodes
    with agents_dead(lab), made_pod(lab, node) as pod:
        before = take(node)

        added = execute(lab, pod, "ADD")
        checked = execute(lab, pod, "CHECK", prevResult=added.document)
        unreached = unanswered(lab, other.pods[0].netns, added.addresses)
        deleted = execute(lab, pod, "DEL")

        assert (added.status, checked.status, deleted.status) == (0, 0, 0)
        assert unreached == []
        assert differences(before, take(node)) == []


def test_what_an_agent_attached_is_deleted_without_it(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    with made_pod(lab, node) as pod:
        assert execute(lab, pod, "ADD").status == 0

        with agents_dead(lab):
            deleted = execute(lab, pod, "DEL")

        assert deleted.status == 0
        assert differences(before, take(node)) == []


def test_the_plugin_does_not_wait_for_a_hung_agent(lab: Lab) -> None:
    node, other = lab.layout.nodes
    before = take(node)
    with made_pod(lab, node) as pod:
        with agent_hung(lab, node):
            seconds = []
            replies: list[Reply] = []
            for command in ("ADD", "CHECK", "DEL"):
                begin = time.monotonic()
                previous: dict[str, Any] = (
                    {"prevResult": replies[0].document} if command == "CHECK" else {}
                )
                replies.append(execute(lab, pod, command, **previous))
                seconds.append(time.monotonic() - begin)
                if command == "ADD":
                    assert unanswered(lab, other.pods[0].netns, replies[0].addresses) == []

        assert [reply.status for reply in replies] == [0, 0, 0]
        assert max(seconds) < FEW_SECONDS
        assert differences(before, take(node)) == []


def test_del_clears_what_a_killed_agent_left_half_done(lab: Lab) -> None:
    """The agent dies with many calls in hand: each was done, or asks for a retry."""
    node = lab.layout.nodes[0]
    before = take(node)
    with ExitStack() as stack:
        pods = [stack.enter_context(made_pod(lab, node)) for _ in range(8)]
        with ThreadPoolExecutor(len(pods)) as pool:
            calls = [pool.submit(execute, lab, pod, "ADD") for pod in pods]
            wait_until(lambda: _any_link(node, before), "an ADD is under way")
            with agents_dead(lab):
                replies = [call.result() for call in calls]
                assert {r.document.get("code") for r in replies} <= {None, TRY_AGAIN}

                deleted = [execute(lab, pod, "DEL") for pod in pods]

        assert [one.text for one in deleted if one.status] == []
        assert differences(before, take(node)) == []


def test_a_restarted_agent_changes_nothing_and_serves(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    before = take(node)

    lab.stop_agent(node)
    assert not (node.directory / "run" / "agent.sock").exists()
    lab.start_agent(node)
    cluster.wait_for_agent(lab, node)

    # the socket for events is made a moment later
    wait_until_none(lambda: differences(before, take(node), without=("nft",)))
    with made_pod(lab, node) as pod:
        assert execute(lab, pod, "ADD").status == 0
        assert execute(lab, pod, "DEL").status == 0


def test_a_second_agent_of_a_node_is_refused(lab: Lab) -> None:
    node = lab.layout.nodes[0]

    second = pycni(node, "agent")

    assert second.returncode == 1
    assert b"another agent serves" in second.stderr
    assert b"setup step" not in second.stderr, "the second one began with a setup"
    assert rows(lab, node, "endpoints") != []
    assert lab.agents[node.name].alive


def _any_link(node: LabNode, before: dict[str, list[str]]) -> bool:
    with open_iproute(node.netns) as ipr:
        return len(ipr.get_links()) > len(before["links"])
