# SPDX-License-Identifier: Apache-2.0
"""Every damage of the table (support/damages.py) to a node without an agent: status names it, exits
accordingly, and `pycni setup` mends it; the plugin's STATUS tells that pods are cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pycni.lab import runtime
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from support.damages import DAMAGES, Damage
from support.labs import made_lab, pycni
from support.plugin import execute

BROKEN, DEGRADED = 2, 1
NOT_AVAILABLE, LIMITED = 50, 51


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A cluster of its own; the first node's agent is dead."""
    with made_lab(nodes=2, pods=1) as made:
        made.stop_agent(made.layout.nodes[0], kill=True)
        yield made


def status(node: LabNode) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and the rows of what is not well, without the agent's own."""
    done = pycni(node, "status", "-o", "json")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return done.returncode, [
        row for row in rows if row["state"] in ("degraded", "broken") and row["name"] != "agent"
    ]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_status_names_damage_and_setup_mends_it(lab: Lab, damage: Damage) -> None:
    node = lab.layout.nodes[0]
    assert status(node) == (DEGRADED, [])  # there is no agent

    damage.do(lab, node)
    try:
        code, found = status(node)
        named = [row for row in found if row["name"] == damage.part]
        plugin = execute(lab, node.pods[0], "STATUS", alone=True, cniVersion="1.1.0")

        assert any(damage.words in row["cause"] for row in named), found
        assert all(row["to_do"] for row in named)
        assert code == (BROKEN if damage.is_broken else DEGRADED)
        if damage.plugin_tells:
            assert plugin.document["code"] == (LIMITED if damage.is_broken else NOT_AVAILABLE)
    finally:
        if damage.undo is not None:
            damage.undo(lab, node)

    assert pycni(node, "setup").returncode == 0
    assert status(node) == (DEGRADED, [])
    runtime.check(node, node.pods[0], lab.results[node.pods[0].name])
