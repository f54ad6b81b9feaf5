# SPDX-License-Identifier: Apache-2.0
"""Parts: docs/upkeep.md has a row for each, with the events that wake it and who mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni.kernel.node_events import Subject
from pycni.upkeep.parts import PARTS, named

PAGE = Path(__file__).parents[3] / "docs" / "upkeep.md"
HEAD = "| row |"
WORDS = {
    "links": Subject.LINK,
    "addresses": Subject.ADDRESS,
    "routes": Subject.ROUTE,
    "rules": Subject.RULE,
    "qdiscs": Subject.QDISC,
    "parameters": Subject.PARAMETER,
    "nftables": Subject.TABLES,
    "mounts": Subject.MOUNT,
    "the store": Subject.STORE,
}
"""The page's words for events."""


def table() -> Iterator[tuple[str, list[str], str]]:
    """By row of the page's table: the part, its events, and who mends it."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(HEAD)) + 2
    for line in lines[first:]:
        if not line.startswith("|"):
            return
        name, _, events, mender = (cell.strip() for cell in line.strip("|").split("|"))
        yield name.strip("`"), [] if events == "—" else events.split(", "), mender


def test_the_page_has_all_parts_in_their_order() -> None:
    assert [name for name, _, _ in table()] == [part.name for part in PARTS]


@pytest.mark.parametrize(("name", "events", "mender"), list(table()))
def test_the_page_says_what_wakes_a_part_and_who_mends_it(
    name: str, events: list[str], mender: str
) -> None:
    part = named(name)

    assert {WORDS[word] for word in events} == part.wakes
    assert mender.startswith("setup") == (part.mend is None and part.setup_helps)
