# SPDX-License-Identifier: Apache-2.0
"""Rows: reasons as bpf/README.md spells them, events on one line."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pycni.cli import cli, rows
from pycni.cli.invocation import Invocation
from pycni.dataplane import dumps, events
from pycni.dataplane.events import DropEvent, Lost
from pycni.settings import Settings
from pycni.stores.ip_pools import Census

README = Path(__file__).parents[3] / "bpf" / "README.md"
TYPES = Path(__file__).parents[3] / "bpf" / "lib" / "types.h"
SETTINGS = Settings(node_name="node1")
EVENT = {
    "time": "2026-01-01T00:00:00.000000+00:00",
    "program": "from_container",
    "reason": "SPOOFED_SOURCE",
    "interface": "evil\x1b[2J",
    "ifindex": 7,
    "length": 60,
    "head": "0102",
}


def test_reasons_are_spelled_as_in_the_table_of_the_packet_walk() -> None:
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", README.read_text(), re.MULTILINE))
    names = re.findall(r"\bDROP_([A-Z0-9_]+)\b(?= =|,)", TYPES.read_text())

    as_read = {name.lower().replace("_", " ") for name in names if f"{name}" in documented}

    assert len(as_read) > 10
    assert {dumps.spelled(name) for name in as_read} <= documented


def test_the_reasons_that_are_normal_are_those_that_the_packet_walk_calls_so() -> None:
    lines = re.findall(r"^\| `([A-Z0-9_]+)` \|(.*)$", README.read_text(), re.MULTILINE)

    assert {name for name, words in lines if "normal:" in words} == dumps.NORMAL


def test_drops_of_what_every_host_sends_come_last_and_are_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [{"program": "from_container", "reason": reason, "packets": 1, "bytes": 2}
             for reason in ("multicast", "wrong vni")]  # fmt: skip
    columns = ("program", "reason", "packets", "bytes")
    monkeypatch.setattr(dumps, "dump", lambda *_: (found, columns))
    monkeypatch.setattr(rows.overlay_guard, "drops", dict)

    told, names = rows.drops(SETTINGS)

    assert [(row["reason"], row["normal"]) for row in told] == [
        ("WRONG_VNI", False), ("MULTICAST", True)
    ]  # fmt: skip
    assert names == (*columns, "normal")


def test_entries_spell_reasons_and_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [{"reason": "wrong vni", "program": "from_underlay", "packets": 1, "bytes": 2}]
    columns = ("reason", "program", "packets", "bytes")
    monkeypatch.setattr(dumps, "dump", lambda *_: (found, columns))

    spelled, same = rows.entries(SETTINGS, "drops")

    assert spelled == [found[0] | {"reason": "WRONG_VNI"}]
    assert same == columns


def test_an_array_is_not_told_to_be_full(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"drops": "percpu_array", "endpoints": "hash"}
    monkeypatch.setattr(dumps, "NAMES", tuple(kinds))
    monkeypatch.setattr(
        dumps,
        "describe",
        lambda _, name: {"name": name, "type": kinds[name], "entries": 80, "max_entries": 80},
    )

    assert [row["entries"] for row in rows.maps(SETTINGS)] == [None, 80]


def test_an_event_is_one_line_in_both_forms() -> None:
    text, document = rows.line(EVENT, as_json=False), rows.line(EVENT, as_json=True)

    assert text == (
        "2026-01-01T00:00:00.000000+00:00 from_container SPOOFED_SOURCE "
        "interface=evil\\x1b[2J length=60 head=0102"
    )
    assert json.loads(document) == EVENT
    assert "\n" not in document


def test_drop_events_name_the_interface_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [
        DropEvent(1, 10**18, ifindex, 60, "from_container", "spoofed source", b"\1\2")
        for ifindex in (1, 2**31 - 1)
    ]
    monkeypatch.setattr(events, "follow", lambda _: iter(told))

    first, second = rows.drop_events(SETTINGS)

    assert first == {
        "time": "2001-09-09T01:46:40.000000Z",
        "program": "from_container",
        "reason": "SPOOFED_SOURCE",
        "interface": "lo",
        "ifindex": 1,
        "length": 60,
        "head": "0102",
    }
    assert second["interface"] is None


def test_lost_events_are_told_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "follow", lambda _: iter([Lost(7)]))

    (row,) = rows.drop_events(SETTINGS)

    assert rows.line(row, as_json=False) == "7 events were lost here"
    assert json.loads(rows.line(row, as_json=True)) == {"lost": 7}


def test_pools_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Census("tiny", ip_network("10.244.8.0/23"), "in use", 2, 1, ("node-two",)),
        Census("wrong", None, "set aside: it overlaps"),
    ]
    store = SimpleNamespace(blocks=lambda: SimpleNamespace(census=lambda: found))
    monkeypatch.setattr(rows, "open_store", lambda *_, **__: store)

    (tiny, wrong), why = rows.pools(SETTINGS)

    assert why == ""

    assert tiny == {
        "name": "tiny", "cidr": "10.244.8.0/23", "blocks": 2, "claimed": 1,
        "silent_nodes": ["node-two"], "state": "in use",
    }  # fmt: skip
    assert (wrong["cidr"], wrong["state"]) == ("", "set aside: it overlaps")


@pytest.mark.parametrize(
    ("registry", "why"),
    [(None, "claims no blocks"), (SimpleNamespace(census=list), "nobody has made an IPPool yet")],
)
def test_a_store_without_pools_is_no_error_and_says_why(
    monkeypatch: pytest.MonkeyPatch, registry: object, why: str
) -> None:
    store = SimpleNamespace(blocks=lambda: registry)
    monkeypatch.setattr(rows, "open_store", lambda *_, **__: store)

    done = CliRunner().invoke(cli, ["pools", "-o", "json"], obj=Invocation())

    assert (done.exit_code, json.loads(done.stdout)) == (0, [])
    assert why in done.stderr
