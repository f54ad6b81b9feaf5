# SPDX-License-Identifier: Apache-2.0
"""Nodes that go over from each way to each other one, one by one, under traffic in both directions.

PYCNI_MATRIX=whole switches between every two of them (`make test-modes`), otherwise between those
that have least in common.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.node import next_hops
from pycni.node.record import Node, record_path
from pycni.settings import load
from pycni.stores import DIRECT, VXLAN, open_store
from pycni.stores.sqlite import rows as store_rows
from support.flood import Flood, unanswered
from support.labs import made_lab, setup, write_settings
from support.waiting import wait_until

SEND = ("direct", "auto-direct")
WAYS = ("ebpf", "kernel", "auto", "direct", "auto-direct")
"""Values of `encap`. Between `direct` and all others the MTU changes, too."""
INTERVAL = 0.003
"""Seconds from packet to packet: two setups on a busy machine take more than a minute."""
CUT = ("auto", "direct", "auto-direct", "kernel", "direct", "ebpf", "auto-direct", "auto")


def every_pair() -> list[str]:
    """From way to way, so that each follows each other one once: a tour through WAYS, round by
    round in longer steps. Their number must be a prime."""
    tour = [WAYS[0]]
    for step in range(1, len(WAYS)):
        for _ in WAYS:
            tour.append(WAYS[(WAYS.index(tour[-1]) + step) % len(WAYS)])
    return tour


TOUR = every_pair() if os.environ.get("PYCNI_MATRIX") == "whole" else CUT
SWITCHES = list(itertools.pairwise(TOUR))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=1) as made:
        for source, target in (made.layout.pods, made.layout.pods[::-1]):
            assert unanswered(made, source.netns, made.addresses(target)) == []
        yield made


def modes(node: LabNode) -> list[str]:
    return list(next_hops.modes(load(node.settings_path)).values())


def accepted(node: LabNode) -> tuple[str, ...]:
    """What the node's record says."""
    settings = load(node.settings_path)
    store = open_store(settings.store_url, settings.cluster, create=False)
    return next(one.accepts for one in store.nodes() if one.name == node.name)


def node_record(node: LabNode) -> Node:
    return Node.load(load(node.settings_path))


def switch(node: LabNode, encap: str) -> None:
    write_settings(node, encap=encap)
    setup(node)


def wait_for_mode(lab: Lab, mode: str) -> None:
    nodes = lab.layout.nodes
    wait_until(lambda: all(modes(node) == [mode] for node in nodes), f"all nodes send {mode}")


@contextmanager
def traffic(lab: Lab) -> Iterator[None]:
    """In both families and directions; fails if a packet is lost."""
    one, two = lab.layout.pods
    with ExitStack() as stack:
        floods = [
            stack.enter_context(Flood(source, lab.addresses(target), count=500, interval=INTERVAL))
            for source, target in ((one, two), (two, one))
        ]
        yield
        assert all(flood.flowing for flood in floods)
        lost = [flood.lost() for flood in floods]
    assert [set(one.values()) for one in lost] == [{0}, {0}]


def go_over(lab: Lab, encap: str) -> None:
    """All nodes, one after the other, until packets leave so; those that do already stay."""
    for node in lab.layout.nodes:
        if load(node.settings_path).encap != encap:
            switch(node, encap)
    wait_for_mode(lab, DIRECT if encap in SEND else VXLAN)


def test_the_tour_has_every_pair_once() -> None:
    found = list(itertools.pairwise(every_pair()))

    assert sorted(found) == sorted(itertools.permutations(WAYS, 2))
    assert {way for pair in itertools.pairwise(CUT) for way in pair} == set(WAYS)


@pytest.mark.parametrize(("before", "after"), SWITCHES, ids=[" to ".join(one) for one in SWITCHES])
def test_no_packet_is_lost_from_way_to_way(lab: Lab, before: str, after: str) -> None:
    go_over(lab, before)

    with traffic(lab):
        go_over(lab, after)

    accepts = (DIRECT,) if after in SEND else ()
    assert [accepted(node) for node in lab.layout.nodes] == [accepts] * 2


def test_one_node_alone_gets_and_sends_vxlan(lab: Lab) -> None:
    one, two = lab.layout.nodes
    with traffic(lab):
        switch(one, "direct")
        wait_until(lambda: accepted(one) == (DIRECT,), "the store knows")

    assert (modes(one), modes(two)) == ([VXLAN], [VXLAN])
    switch(one, "auto")


def test_a_node_that_goes_back_to_an_older_release_gets_vxlan(lab: Lab) -> None:
    """Which writes its place in the store again, and knows nothing of the rest."""
    one, two = lab.layout.nodes
    for node in (one, two):
        switch(node, "auto-direct")
    wait_for_mode(lab, DIRECT)
    settings, record = load(two.settings_path), node_record(two)

    with traffic(lab), closing(sqlite3.connect(settings.store_url[len("sqlite:") :])) as db, db:
        cidrs = map(str, record.pod_cidrs)
        (identity,) = db.execute(
            "SELECT identity FROM nodes WHERE name = ?", (two.name,)
        ).fetchone()
        row = (two.name, record.node_id, str(record.vtep), *cidrs, identity, time.time())
        db.execute(store_rows.INSERT, row)
        db.commit()
        wait_until(lambda: modes(one) == [VXLAN], "the other one sends VXLAN")

    for node in (one, two):
        switch(node, "auto")
    wait_for_mode(lab, VXLAN)


def test_the_door_is_closed_when_nobody_sends_any_more(lab: Lab) -> None:
    one = lab.layout.nodes[0]
    switch(one, "direct")
    switch(one, "auto")
    lingers = node_record(one)
    assert not lingers.direct
    assert lingers.direct_until > time.time()

    path = record_path(load(one.settings_path))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"direct_until": 1.0}))

    with traffic(lab):
        wait_until(lambda: not node_record(one).takes_direct, "the agent has closed the door")
