# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/place.py: when a node has lost its place, and who is told."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.agent.known import Known
from pycni.agent.place import Place
from pycni.errors import NotAvailable, PlaceLost
from pycni.node import cluster_faults, place, report
from pycni.node.record import Node
from pycni.node.report import PLACE, Report
from pycni.settings import Settings
from pycni.stores import NodeRecord, Rival

CIDR, OTHER_CIDR = ip_network("10.244.0.0/24"), ip_network("10.244.7.0/24")
NODE = Node("one", 1, ip_address("192.0.2.1"), (CIDR,), (ip_network("10.244.0.0/16"),),
            "eth0", 1450, 4789)  # fmt: skip
OWN = NodeRecord("one", 1, NODE.vtep, (CIDR,))
RIVAL = Rival("them", "192.0.2.77")
LOST = PlaceLost("the node one is not registered", hint="drain it")


class World:
    """An agent, and who reads its report."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(node_name="one", run_dir=directory)
        self.known = Known()
        self.place = Place(Report(self.settings), self.known)

    @property
    def refusal(self) -> str:
        """What an ADD is told; empty if it may go on."""
        try:
            place.refuse_lost(self.settings)
        except NotAvailable as error:
            return f"{error.code} {error.message}; {error.hint}"
        return ""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_an_agent_or_with_a_place_pods_are_added(world: World) -> None:
    assert world.refusal == ""

    world.place.beat(NODE, None)

    assert world.refusal == ""
    assert [one.part for one in cluster_faults.faults(world.settings, None)] == []


def test_a_place_that_is_lost_is_told_until_a_heartbeat_is_well(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world.place.lose(LOST)
    world.place.lose(LOST)
    world.place.repeat()

    assert world.refusal == (
        "50 this node has lost its place in the cluster: the node one is not registered; drain it"
    )
    (fault,) = cluster_faults.faults(world.settings, None)
    assert (fault.part, fault.todo) == ("place", "drain it")
    assert "the node one is not registered" in fault.sentence

    world.place.beat(NODE, None)

    assert world.refusal == ""
    assert [one.split()[:2] for one in caplog.messages] == [["place", "lost,"], ["place", "is"]]


def test_a_store_that_does_not_answer_keeps_the_news_fresh(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.place.lose(LOST)
    monkeypatch.setattr(report, "RENEWAL", 0.0)
    before = json.loads(report.report_path(world.settings).read_bytes())

    world.place.repeat()

    after = json.loads(report.report_path(world.settings).read_bytes())
    assert after["written"] > before["written"]
    assert after[PLACE] == before[PLACE] != ""


def test_a_record_with_other_pod_cidrs_is_no_place(world: World) -> None:
    world.known.tell([replace(OWN, pod_cidrs=(OTHER_CIDR,))])

    world.place.beat(NODE, None)

    assert f"has the pod CIDRs {OTHER_CIDR} in the cluster store" in world.refusal
    assert "pycni nodes" in world.refusal


def test_a_record_that_is_set_aside_is_no_place_once_the_news_cannot_be_late(world: World) -> None:
    world.known.tell([])

    world.place.beat(NODE, None)
    assert world.refusal == ""
    world.place.beat(NODE, None)
    assert "set aside" in world.refusal

    world.known.tell([OWN])
    world.place.beat(NODE, None)
    assert world.refusal == ""


@pytest.mark.parametrize(
    ("own", "rival", "is_lost"),
    [
        pytest.param(OWN, RIVAL, False, id="one that was refused"),
        pytest.param(OWN, replace(RIVAL, has_place=True), True, id="one that registered last"),
        pytest.param(replace(OWN, vtep=ip_address("192.0.2.77")), RIVAL, True, id="its address"),
        pytest.param(replace(OWN, vtep=ip_address("192.0.2.77")), None, False, id="we move"),
    ],
)
def test_another_machine_has_the_place_if_the_record_is_its_own(
    world: World, own: NodeRecord, rival: Rival | None, is_lost: bool
) -> None:
    world.known.tell([own])

    world.place.beat(NODE, rival)

    assert ("another machine registered" in world.refusal) is is_lost


def test_a_node_of_that_name_in_another_section_is_no_loss(tmp_path: Path) -> None:
    settings = Settings(node_name="one", run_dir=tmp_path)
    Report(settings).put(report.PEERS, {"place": {"cause": "x"}})

    place.refuse_lost(settings)
