# SPDX-License-Identifier: Apache-2.0
"""Every damage of the table (support/damages.py) to a node whose agent runs: it is mended in time,
said once, counted, and everything forwards again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from loader import Hook, clsact, tcx
from loader.places import ENDPOINT_PROGRAMS
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.lab import cluster, processes, runtime
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import WORLD, LabNode
from pycni.lab.topology import open_rtnl
from pycni.settings import load
from pycni.upkeep import book, parts, report
from pycni.upkeep.report import Row, State
from support.damages import DAMAGES, EVENT, FORGOTTEN_RECORD, LOOK, Damage, pod_links
from support.flood import unanswered
from support.labs import made_lab, made_pod, within
from support.plugin import execute
from support.waiting import wait_until

MENDED = [damage for damage in (*DAMAGES, FORGOTTEN_RECORD) if damage.undo is None]
LEFT = [damage for damage in DAMAGES if damage.undo is not None]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A cluster of its own, for these damages."""
    with made_lab(nodes=2, pods=1) as made:
        yield made


def rows(node: LabNode) -> list[Row]:
    """Those of `pycni status`."""
    settings = load(node.settings_path)
    return within(node.netns, lambda: report.rows(settings))


def faults(node: LabNode) -> list[Row]:
    """The rows of what is not well."""
    return [row for row in rows(node) if row.state in (State.DEGRADED, State.BROKEN)]


def told(node: LabNode) -> list[str]:
    """The agent's lines about mends."""
    return [line for line in node.log_path.read_text().splitlines() if " mended part=" in line]


def said(node: LabNode, damage: Damage, at: int) -> bool:
    """Whether the agent's log has named, since it had this length, what others must mend."""
    new = node.log_path.read_text()[at:].splitlines()
    lines = [line for line in new if f"left to a person part={damage.part}" in line]
    return any(damage.words in line for line in lines)


def forwards(lab: Lab, node: LabNode) -> list[Any]:
    """What does not get through: from the node's pod to the other node's pod and to the world, back
    from there, and from the host."""
    other = next(one for one in lab.layout.nodes if one != node)
    own, far = lab.addresses(node.pods[0]), lab.addresses(other.pods[0])
    world = [str(address) for address in WORLD]
    return [
        *unanswered(lab, node.pods[0].netns, [*far, *world]),
        *unanswered(lab, other.pods[0].netns, own),
        *unanswered(lab, node.netns, far),
    ]


def cause(node: LabNode, damage: Damage) -> str:
    """What the row of a damage's part says."""
    (row,) = [row for row in rows(node) if row.name == damage.part]
    return row.cause


@pytest.mark.parametrize("damage", MENDED, ids=str)
def test_damage_is_mended_and_said(lab: Lab, damage: Damage) -> None:
    node = lab.layout.nodes[0]
    book.close(load(node.settings_path))  # the damages follow each other as in a quarrel
    assert faults(node) == []
    before = len(told(node))

    damage.do(lab, node)
    wait_until(lambda: len(told(node)) > before, f"{damage} is mended", seconds=damage.within)
    wait_until(lambda: faults(node) == [], f"{damage} is mended for good", seconds=damage.within)

    new = told(node)[before:]
    assert any(f"part={damage.part}" in line.replace('"', "") for line in new), new
    assert any(damage.words in line for line in new), new
    wait_until(lambda: "mended" in cause(node, damage), f"the row counts {damage}")
    if damage.part == "registration":  # the other node hears from the store that it is back
        wait_until(lambda: forwards(lab, node) == [], "the other node sends to it again")
    assert forwards(lab, node) == []
    if damage.tidy is not None:
        damage.tidy(lab, node)


def test_an_alias_that_somebody_changed_comes_back(lab: Lab) -> None:
    """Without it the pod has no lease, and nothing else of it would be held."""
    node = lab.layout.nodes[0]
    book.close(load(node.settings_path))
    with open_rtnl(node.netns) as ipr:
        before = [link.alias for link in pod_links(ipr)]
        count = len(told(node))
        for link in pod_links(ipr):
            ipr.set_alias(link.ifindex, "mine")
        wait_until(lambda: len(told(node)) > count, "it is mended", seconds=EVENT)

        assert [link.alias for link in pod_links(ipr)] == before
        assert faults(node) == []
        assert any("part=leases" in line for line in told(node)[count:])


def test_programs_that_are_no_filters_come_back_to_a_pod(lab: Lab) -> None:
    """Those of tcx, whose end the kernel does not tell of. They come back as filters: nobody waits
    for such, and what others have at the link meanwhile keeps its place."""
    node = lab.layout.nodes[0]
    book.close(load(node.settings_path))
    with made_pod(lab, node) as pod, open_rtnl(node.netns) as ipr:
        added = execute(lab, pod, "ADD", tcx=True)
        assert added.status == 0, added.text
        index, before = ipr.ifindex(added.document["interfaces"][0]["name"]), len(told(node))
        whole = within(node.netns, lambda: tcx.attached(index))

        for program in whole:
            assert within(node.netns, partial(tcx.detach, Hook(index, program)))
        wait_until(lambda: len(told(node)) > before, "it is mended", seconds=LOOK)
        wait_until(lambda: faults(node) == [], "it is mended for good")

        assert set(whole) == set(ENDPOINT_PROGRAMS)
        assert within(node.netns, lambda: tcx.attached(index)) == {}
        assert within(node.netns, lambda: clsact.attached(ipr, index)) == whole
        assert all("part=hooks" in line and pod.name in line for line in told(node)[before:])
        assert unanswered(lab, pod.netns, lab.addresses(node.pods[0])) == []
        assert execute(lab, pod, "DEL").status == 0


RENAMED = "lan7"


def _rename(ipr: Rtnl, link: Link) -> None:
    ipr.rename(link, RENAMED)


def _edit(ipr: Rtnl, link: Link) -> None:
    ipr.set_alias(link.ifindex, "mine")


def _both(ipr: Rtnl, link: Link) -> None:
    _rename(ipr, link)
    _edit(ipr, link)


@pytest.mark.parametrize("change", [_rename, _edit, _both], ids=["name", "alias", "both"])
def test_a_pods_link_keeps_its_name_and_its_lease(
    lab: Lab, change: Callable[[Rtnl, Link], object]
) -> None:
    """The pod is served all the time, and CHECK and DEL find it."""
    node = lab.layout.nodes[0]
    (pod,) = node.pods
    book.close(load(node.settings_path))
    with open_rtnl(node.netns) as ipr:
        (before,) = pod_links(ipr)
        count = len(told(node))
        change(ipr, before)
        lost = forwards(lab, node)
        wait_until(lambda: len(told(node)) > count, "it is mended", seconds=EVENT)

        now = ipr.link_at(before.ifindex)
        assert now is not None
        assert (now.ifname, now.alias) == (before.ifname, before.alias)
        assert lost == []
        assert faults(node) == []
        runtime.check(node, pod, lab.results[pod.name])
        lab.detach(pod)
        assert ipr.link_at(before.ifindex) is None
    lab.attach(pod)
    assert forwards(lab, node) == []


@pytest.mark.parametrize("name", ["overlay device deleted", "uplink's MTU lowered", "all pins"])
def test_what_takes_a_setup_is_mended_without_the_store(lab: Lab, name: str) -> None:
    node, store = lab.layout.nodes[0], lab.layout.directory / "store"
    damage = next(one for one in MENDED if one.name.startswith(name))
    book.close(load(node.settings_path))
    before, at = len(told(node)), len(node.log_path.read_text())

    def left() -> list[Row]:
        return [row for row in faults(node) if row.name not in ("store", "records", "peers")]

    store.rename(store.with_name("away"))
    try:
        damage.do(lab, node)
        wait_until(lambda: len(told(node)) > before, f"{damage} is mended", seconds=damage.within)
        wait_until(lambda: left() == [], f"{damage} is mended for good", seconds=damage.within)

        assert forwards(lab, node) == []
        assert "node not mended" not in node.log_path.read_text()[at:]
    finally:
        store.with_name("away").rename(store)
    wait_until(lambda: faults(node) == [], "all is well when the store is back", seconds=LOOK)


def test_what_takes_a_setup_is_mended_while_the_store_takes_no_writes(lab: Lab) -> None:
    """It answers, as etcd without room or a database on a full disk."""
    node = lab.layout.nodes[0]
    damage = next(one for one in MENDED if one.name == "overlay device deleted")
    book.close(load(node.settings_path))
    with closing(sqlite3.connect(lab.layout.directory / "store" / "cluster.db")) as store:
        store.execute("BEGIN IMMEDIATE")
        before = len(told(node))

        damage.do(lab, node)
        wait_until(lambda: len(told(node)) > before, f"{damage} is mended", seconds=LOOK)

        assert forwards(lab, node) == []
    wait_until(lambda: faults(node) == [], "all is well when it takes them again", seconds=LOOK)


@pytest.mark.parametrize("name", ["overlay device deleted", "all pins"])
def test_what_takes_a_setup_is_mended_on_a_full_disk(lab: Lab, name: str) -> None:
    node = lab.layout.nodes[0]
    full = next(one for one in DAMAGES if one.name == "state directory full")
    damage = next(one for one in MENDED if one.name.startswith(name))
    book.close(load(node.settings_path))
    before = len(told(node))

    full.do(lab, node)
    try:
        damage.do(lab, node)
        wait_until(lambda: len(told(node)) > before, f"{damage} is mended", seconds=LOOK)

        assert forwards(lab, node) == []
    finally:
        assert full.undo is not None
        full.undo(lab, node)
    wait_until(lambda: faults(node) == [], "all is well on a disk with room", seconds=LOOK)


def test_an_agent_that_never_heard_of_the_store_forgets_no_node(lab: Lab) -> None:
    node, store = lab.layout.nodes[0], lab.layout.directory / "store"
    damage = next(one for one in MENDED if one.name == "overlay device deleted")
    before = {name: lab.pycni(node, "maps", "dump", name) for name in ("vteps", "remotes", "nodes")}
    lab.stop_agent(node)
    store.rename(store.with_name("away"))
    try:
        command = pycni_command(node, "--verbose", "agent", "--no-setup")
        lab.agents[node.name] = processes.start(node.netns, command, log=node.log_path)
        cluster.wait_for_agent(lab, node)
        count = len(told(node))

        damage.do(lab, node)
        wait_until(lambda: len(told(node)) > count, f"{damage} is mended", seconds=damage.within)

        assert {name: lab.pycni(node, "maps", "dump", name) for name in before} == before
        assert forwards(lab, node) == []
    finally:
        store.with_name("away").rename(store)
    wait_until(lambda: faults(node) == [], "all is well when the store is back", seconds=LOOK)


@pytest.mark.parametrize("damage", LEFT, ids=str)
def test_what_an_agent_must_leave_is_said_with_what_to_do(lab: Lab, damage: Damage) -> None:
    node = lab.layout.nodes[0]
    assert damage.undo is not None
    before, at = len(told(node)), len(node.log_path.read_text())

    damage.do(lab, node)
    try:
        wait_until(
            lambda: any(row.name == damage.part for row in faults(node)), f"{damage} is named"
        )
        row = next(row for row in faults(node) if row.name == damage.part)
        assert damage.words in row.cause
        if parts.named(damage.part).is_others:
            wait_until(lambda: said(node, damage, at), f"the log tells of {damage}", seconds=EVENT)
        assert row.todo
        assert row.todo != report.WAIT
        assert not any(f"part={damage.part}" in line for line in told(node)[before:])
    finally:
        damage.undo(lab, node)

    wait_until(lambda: faults(node) == [], f"all is well after {damage}")
    assert forwards(lab, node) == []
