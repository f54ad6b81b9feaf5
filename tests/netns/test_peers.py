# SPDX-License-Identifier: Apache-2.0
"""What an agent finds out about other nodes: who answers, who has our name, who is too many."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from pycni.dataplane import maps
from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.settings import Settings, load
from pycni.stores import Reach, open_store
from support.eater import vxlan_eaten
from support.labs import prepared_lab, pycni, write_settings
from support.waiting import wait_until

pytestmark = pytest.mark.root

INTERVAL = 5
SOON = 4 * INTERVAL
DECLARED, CROWD = 8192, 8300


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two nodes that ask each other often."""
    with prepared_lab(nodes=2, probe_interval=INTERVAL) as made:
        for node in made.layout.nodes:
            made.start_agent(node)
        for node in made.layout.nodes:
            cluster.wait_for_agent(made, node)
        yield made


def seen(node: LabNode, other: LabNode) -> dict[str, Any]:
    """A node's row about another."""
    rows = json.loads(pycni(node, "nodes", "-o", "json").stdout)
    return next(row for row in rows if row["name"] == other.name)


def status(node: LabNode) -> str:
    return pycni(node, "status").stdout.decode()


def test_an_underlay_that_eats_vxlan_is_named_and_the_node_counts_as_alive(lab: Lab) -> None:
    one, two = lab.layout.nodes
    port = load(one.settings_path).port

    def says(**wanted: object) -> bool:
        row = seen(one, two)
        return all(row[key] == value for key, value in wanted.items())

    wait_until(lambda: says(answers=True, forwards=True), "both answer", seconds=SOON)
    assert seen(one, two)["seen_seconds_ago"] <= SOON
    assert "1 of 1 answer through the overlay" in status(one)

    with vxlan_eaten(lab, two, port=port):
        wait_until(
            lambda: says(answers=True, forwards=False, agent="alive"), "eaten", seconds=2 * SOON
        )
        # both ways: what node two asks is answered into the void
        wait_until(lambda: not seen(two, one)["forwards"], "eaten there, too", seconds=2 * SOON)
        told = status(one)
        assert f"UDP port {port}" in told
        assert two.name in told

    wait_until(lambda: says(answers=True, forwards=True), "both answer again", seconds=2 * SOON)
    log = (one.directory / "agent.log").read_text()
    assert f"node not reached through the overlay node={two.name}" in log
    assert f"node reached again node={two.name}" in log


def test_a_copy_of_a_node_is_refused_and_both_are_told(lab: Lab) -> None:
    """All hosts of a lab have one machine-id, as copies of one image have."""
    one, two = lab.layout.nodes
    lab.stop_agent(two)
    assert pycni(two, "teardown", "--yes").returncode == 0
    write_settings(two, node_name=one.name)

    refused = pycni(two, "setup")

    assert refused.returncode == 1
    assert b"another machine with the same machine-id" in refused.stderr
    assert b"/etc/machine-id" in refused.stderr
    wait_until(lambda: "also that of another machine" in status(one), "told", seconds=SOON)
    assert "another machine has this node's name" in (one.directory / "agent.log").read_text()


def test_a_record_that_a_node_sets_aside_is_one_row_and_breaks_no_other(lab: Lab) -> None:
    """It publishes an address that this node has beside its VTEP."""
    one = lab.layout.nodes[0]
    settings = load(one.settings_path)
    store = open_store(settings.store_url, settings.cluster, create=False)
    record = store.register("evil", ipaddress.ip_address("198.18.0.66"), identity="x", instance="y",
                            reach=Reach((), ()))  # fmt: skip
    store.publish(record.name, ipaddress.ip_network(one.underlay[1].ip))

    wait_until(lambda: "that it published is one of this node" in status(one), "it is set aside")

    rows = json.loads(pycni(one, "status", "-o", "json").stdout)
    assert [row["name"] for row in rows if row["state"] == "broken"] == []
    assert "records" in [row["name"] for row in rows if row["state"] == "degraded"]


def test_maps_grow_when_the_cluster_does_and_nobody_is_left_out() -> None:
    """8,300 nodes, where the programs declare maps for 8,192."""
    everything = ipaddress.IPv4Network("10.0.0.0/8")
    with prepared_lab(nodes=1, cluster_cidrs=[str(everything)], probe_interval=0) as lab:
        (node,) = lab.layout.nodes
        lab.start_agent(node)
        cluster.wait_for_agent(lab, node)
        settings = load(node.settings_path)

        def size() -> tuple[int, int]:
            with maps.open_map(settings.pin_root, "vteps") as vteps:
                return vteps.info.max_entries, len(vteps.keys())

        assert size() == (DECLARED, 0)
        write_crowd(settings, everything)

        wait_until(lambda: size()[1] == CROWD, "all are there", seconds=90)

        assert size()[0] > CROWD
        assert "the table of other nodes" not in status(node)
        log = (node.directory / "agent.log").read_text()
        assert "more nodes than the maps hold, setup makes larger ones" in log


def write_crowd(settings: Settings, everything: ipaddress.IPv4Network) -> None:
    """Somebody registers CROWD nodes at once."""
    cidrs = itertools.islice(everything.subnets(new_prefix=24), 1, CROWD + 1)
    first = ipaddress.ip_address("198.51.100.0")
    rows = [
        (f"x{number}", number + 10, str(first + number), str(cidr), None, "x", 0.0)
        for number, cidr in enumerate(cidrs)
    ]
    path = settings.store_url.removeprefix("sqlite:")
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db, db:
        db.executemany("INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
