# SPDX-License-Identifier: Apache-2.0
"""What an agent finds out about other nodes: who answers, who has our name, who is too many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.settings import load
from support.eater import vxlan_eaten
from support.labs import prepared_lab, pycni, write_settings
from support.waiting import wait_until

pytestmark = pytest.mark.root

INTERVAL = 5
SOON = 4 * INTERVAL


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
