# SPDX-License-Identifier: Apache-2.0
"""Nodes come, change and go: the others get and lose exactly what is that node's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from pycni.lab import cluster, processes
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import LabNode
from pycni.lab.processes import Kept
from pycni.stores.sqlite.store import POLL_INTERVAL
from support.flood import Flood, unanswered
from support.kernel import open_iproute
from support.labs import prepared_lab, pycni, rows, setup, teardown, wait_for_rows, write_settings
from support.snapshot import differences, take
from support.waiting import wait_until

OTHER_VTEP = "198.18.0.77"
FLOOD = 3000


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Three hosts, two of them nodes with a pod each."""
    with prepared_lab(nodes=3, pods=1) as lab:
        for node in lab.layout.nodes[:2]:
            join(lab, node)
        for node in lab.layout.nodes[:2]:
            wait_for_rows(lab, node, "vteps", 1)
            lab.attach(node.pods[0])
        yield lab


def join(lab: Lab, node: LabNode) -> None:
    lab.start_agent(node)
    cluster.wait_for_agent(lab, node)


def tables(lab: Lab, node: LabNode) -> tuple[set[tuple[str, str]], set[tuple[str, int]]]:
    """`remotes` and `vteps` of a node."""
    remotes = {(row["prefix"], row["vtep"]) for row in rows(lab, node, "remotes")}
    return remotes, {(row["vtep"], row["node"]) for row in rows(lab, node, "vteps")}


def test_others_get_and_lose_exactly_one_nodes_entries(lab: Lab) -> None:
    first, second, third = lab.layout.nodes
    before = [tables(lab, node) for node in (first, second)]
    pods = [node.pods[0] for node in (first, second)]
    kernel = take(first)

    with Flood(pods[0], lab.addresses(pods[1]), count=FLOOD) as flood:
        join(lab, third)
        for node, (remotes, vteps) in zip((first, second), before, strict=True):
            wait_for_rows(lab, node, "remotes", 4)
            more_remotes, more_vteps = tables(lab, node)
            assert remotes < more_remotes
            assert {vtep for _, vtep in more_remotes - remotes} == {str(third.underlay[0].ip)}
            assert len(more_vteps - vteps) == 1
            assert vteps < more_vteps
        lab.attach(third.pods[0])
        assert unanswered(lab, third.pods[0].netns, lab.addresses(pods[0])) == []
        # nft has the addresses of other nodes in a set
        assert differences(kernel, take(first), without=("maps", "neighbours", "nft")) == []
        own = [line for line in take(first)["neighbours"] if line.startswith("pycni0")]
        assert own == [line for line in kernel["neighbours"] if line.startswith("pycni0")]

        lab.stop_agent(third)
        teardown(third)
        for node, expected in zip((first, second), before, strict=True):
            wait_for_rows(lab, node, "remotes", 2)
            assert tables(lab, node) == expected
        lost = flood.lost()

    assert set(lost.values()) == {0}


def test_other_nodes_survive_one_nodes_update(lab: Lab) -> None:
    first, second, third = lab.layout.nodes
    pods = [node.pods[0] for node in (first, second)]
    join(lab, third)
    wait_until(lambda: len(rows(lab, first, "remotes")) == 4, "the third joins")
    remotes, vteps = tables(lab, first)
    others = {entry for entry in remotes if entry[1] == str(second.underlay[0].ip)}
    lab.attach(third.pods[0])

    with Flood(pods[0], lab.addresses(pods[1]), count=FLOOD) as flood:
        move_vtep(lab, third)
        wait_until(
            lambda: OTHER_VTEP in {vtep for vtep, _ in tables(lab, first)[1]}, "the new VTEP"
        )
        lost = flood.lost()

    new_remotes, new_vteps = tables(lab, first)
    assert set(lost.values()) == {0}
    assert others < new_remotes
    assert {prefix for prefix, _ in new_remotes} == {prefix for prefix, _ in remotes}
    assert len(new_vteps) == len(vteps) == 2
    assert unanswered(lab, pods[0].netns, lab.addresses(third.pods[0])) == []


def test_an_agent_that_cannot_read_the_store_deletes_nothing(lab: Lab) -> None:
    first, second = lab.layout.nodes[:2]
    before = [tables(lab, node) for node in (first, second)]

    lab.stop_agent(first, kill=True)
    with store_broken(lab):
        start = pycni(first, "agent")
        lab.agents[first.name] = start_without_setup(first)
        wait_until(partial(complains, first), "the agent complains")
        found = [tables(lab, node) for node in (first, second)]
        reached = unanswered(lab, first.pods[0].netns, lab.addresses(second.pods[0]))

    assert start.returncode == 1
    assert b"cluster.db" in start.stderr
    assert found == before
    assert reached == []


def test_tables_stay_when_the_store_is_removed_and_follow_when_it_is_back(lab: Lab) -> None:
    first, second, third = lab.layout.nodes
    before = [tables(lab, node) for node in (first, second)]

    with store_away(lab):
        for node in (first, second):
            wait_until(partial(complains, node), "a complaint")
        time.sleep(2 * POLL_INTERVAL)  # nothing is to happen: there is no event to wait for
        found = [tables(lab, node) for node in (first, second)]
        assert found == before
        assert unanswered(lab, first.pods[0].netns, lab.addresses(second.pods[0])) == []
    setup(third)

    for node in (first, second):
        wait_for_rows(lab, node, "remotes", 4)


def test_a_living_node_cannot_be_forgotten(lab: Lab) -> None:
    first, second, third = lab.layout.nodes
    join(lab, third)
    wait_until(lambda: len(rows(lab, first, "remotes")) == 4, "the third joins")

    alive = pycni(first, "forget", third.name)

    assert alive.returncode == 1
    assert b"alive" in alive.stderr
    assert len(rows(lab, second, "remotes")) == 4


def move_vtep(lab: Lab, node: LabNode) -> None:
    """Give a node another address to be reached at, and set it up again."""
    with open_iproute(node.netns) as ipr:
        (uplink,) = ipr.link_lookup(ifname="eth0")
        ipr.addr("add", index=uplink, address=OTHER_VTEP, prefixlen=24)
    write_settings(node, vtep=OTHER_VTEP)
    lab.stop_agent(node)
    join(lab, node)


def _store(lab: Lab) -> Path:
    return lab.layout.directory / "store"


@contextmanager
def store_away(lab: Lab) -> Iterator[None]:
    hidden = lab.layout.directory / "store-away"
    _store(lab).rename(hidden)
    try:
        yield
    finally:
        hidden.rename(_store(lab))


@contextmanager
def store_broken(lab: Lab) -> Iterator[None]:
    with store_away(lab):
        _store(lab).mkdir(mode=0o700)
        (_store(lab) / "cluster.db").write_bytes(b"no database" * 100)
        yield
        (_store(lab) / "cluster.db").unlink()
        _store(lab).rmdir()


def start_without_setup(node: LabNode) -> Kept:
    command = pycni_command(node, "--verbose", "agent", "--no-setup")
    return processes.start(node.netns, command, log=node.log_path)


def complains(node: LabNode) -> bool:
    return "loop=store" in node.log_path.read_text()
