# SPDX-License-Identifier: Apache-2.0
"""Somebody undoes what the agent mends, again and again: it stops, says who, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netns.test_upkeep_mends import faults, told
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.settings import load
from pycni.upkeep.book import OFTEN, Book
from support.damages import DAMAGES, Damage
from support.labs import made_lab, setup
from support.waiting import wait_until

FLUSH, ROUTES = (
    next(damage for damage in DAMAGES if damage.name.startswith(name))
    for name in ("firewall reload", "IPv4 routes flushed")
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A cluster of one node, without pods."""
    with made_lab(nodes=1, pods=0) as made:
        yield made


def quarrel(lab: Lab, node: LabNode, damage: Damage) -> None:
    """Do it as often as it is mended, and once more."""
    for _ in range(OFTEN):
        before = len(told(node))
        damage.do(lab, node)
        wait_until(lambda before=before: len(told(node)) > before, "it is mended")  # type: ignore[misc]
        wait_until(lambda: faults(node) == [], "it is mended for good")
    damage.do(lab, node)
    given_up = f"not mended for now part={damage.part}"
    wait_until(lambda: given_up in node.log_path.read_text(), "the agent gives up")


def test_the_agent_gives_up_and_status_says_who_undoes_it(lab: Lab) -> None:
    (node,) = lab.layout.nodes

    quarrel(lab, node, FLUSH)

    before = len(told(node))
    rows = [row for row in faults(node) if row.name == FLUSH.part]
    assert all("undone 3 times in a minute" in row.cause for row in rows)
    assert any("last by pytest" in row.cause or "last by python" in row.cause for row in rows)
    assert all("find who undoes it" in row.todo for row in rows)
    assert len(told(node)) == before


def test_other_things_are_mended_meanwhile(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    before, left = len(told(node)), {row.name for row in faults(node)}
    assert FLUSH.part in left

    ROUTES.do(lab, node)

    wait_until(lambda: len(told(node)) > before, "the routes are back")
    assert {row.name for row in faults(node)} == left


def test_a_setup_ends_the_quarrel(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    before = len(told(node))

    setup(node)
    assert faults(node) == []
    FLUSH.do(lab, node)

    wait_until(lambda: len(told(node)) > before, "it is mended again")
    wait_until(lambda: faults(node) == [], "it is mended for good")
    assert Book.load(load(node.settings_path)).rests == {}
