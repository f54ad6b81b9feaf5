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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import pytest

from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.node import next_hops
from pycni.node.record import Node, record_path
from pycni.settings import load
from pycni.stores import DIRECT, IPIP, VXLAN, open_store
from pycni.stores.sqlite import rows as store_rows
from support.damages import LOOK
from support.flood import Flood, unanswered
from support.labs import made_lab, setup, write_settings
from support.waiting import wait_until

SENT = {"direct": DIRECT, "auto-direct": DIRECT, "ipip": IPIP}
"""By `encap`, to nodes on the link that take it; else VXLAN."""
WAYS = ("ebpf", "kernel", "auto", "direct", "auto-direct", "ipip")
"""Values of `encap`. From and to `direct` and `ipip` the MTU changes, too."""
INTERVAL = 0.003
"""Seconds from packet to packet: two setups on a busy machine take more than a minute."""
CUT = ("auto", "direct", "ipip", "auto-direct", "kernel", "ipip", "direct", "ebpf", "auto-direct",
       "ipip", "auto")  # fmt: skip


def every_pair(ways: Sequence[str]) -> list[str]:
    """From way to way, so that each follows each other one once: from the first one to each other
    and back, with the tour of the others where the second one has its turn."""
    first, *others = ways
    if not others:
        return [first]
    rest = (way for other in others[1:] for way in (other, first))
    return [first, *every_pair(others), first, *rest]


TOUR = every_pair(WAYS) if os.environ.get("PYCNI_MATRIX") == "whole" else CUT
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


def takes(record: Node) -> bool:
    """Whether it takes anything besides VXLAN."""
    return record.takes_direct or record.takes_ipip


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
    wait_for_mode(lab, SENT.get(encap, VXLAN))


def test_the_tour_has_every_pair_once() -> None:
    found = list(itertools.pairwise(every_pair(WAYS)))

    assert sorted(found) == sorted(itertools.permutations(WAYS, 2))
    assert {way for pair in itertools.pairwise(CUT) for way in pair} == set(WAYS)


@pytest.mark.parametrize(("before", "after"), SWITCHES, ids=[" to ".join(one) for one in SWITCHES])
def test_no_packet_is_lost_from_way_to_way(lab: Lab, before: str, after: str) -> None:
    go_over(lab, before)

    with traffic(lab):
        go_over(lab, after)

    accepts = (SENT[after],) if after in SENT else ()
    assert [accepted(node) for node in lab.layout.nodes] == [accepts] * 2


@pytest.mark.parametrize(
    ("encap", "other"), [("direct", "auto"), ("ipip", "auto"), ("ipip", "direct")]
)
def test_two_nodes_that_do_not_agree_send_vxlan(lab: Lab, encap: str, other: str) -> None:
    one, two = lab.layout.nodes
    with traffic(lab):
        switch(two, other)
        switch(one, encap)
        wait_until(lambda: accepted(one) == (SENT[encap],), "the store knows")
        wait_for_mode(lab, VXLAN)

    for node in (one, two):
        switch(node, "auto")


@pytest.mark.parametrize("encap", ["auto-direct", "ipip"])
def test_a_node_that_goes_back_to_an_older_release_gets_vxlan(lab: Lab, encap: str) -> None:
    """Which writes its place in the store again, and knows nothing of the rest."""
    one, two = lab.layout.nodes
    for node in (one, two):
        switch(node, encap)
    wait_for_mode(lab, SENT[encap])
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


@pytest.mark.parametrize("encap", ["direct", "ipip"])
def test_the_door_is_closed_when_nobody_sends_any_more(lab: Lab, encap: str) -> None:
    one = lab.layout.nodes[0]
    switch(one, encap)
    switch(one, "auto")
    lingers = node_record(one)
    assert takes(lingers)
    assert lingers.door_open_until > time.time()

    path = record_path(load(one.settings_path))
    document = json.loads(path.read_text())
    # the door of a test before may be open, too, for a minute
    over = {key: 1.0 for key, until in document.items() if key.endswith("_until") and until}
    assert f"{encap}_until" in over
    path.write_text(json.dumps(document | over))

    with traffic(lab):
        wait_until(
            lambda: not takes(node_record(one)), "the agent has closed the door", seconds=LOOK
        )
