# SPDX-License-Identifier: Apache-2.0
"""Values are printed as they are: no markup, no emoji, and nothing that a terminal obeys."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest
from rich.console import Console

from pycni.cli import table
from pycni.cli.invocation import Invocation, note
from pycni.cli.output import cell, escape, to_json

LIKE_EMOJI = ["02:cd:00:ab:00:01", "fd00:10:244::100:ab", ":smile:"]
LIKE_MARKUP = ["[fd00::1]", "[bold]x[/bold]", "[/]", "[link=https://x]y[/link]"]


@pytest.mark.parametrize("value", [*LIKE_EMOJI, *LIKE_MARKUP])
def test_a_table_shows_values_letter_by_letter(
    capsys: pytest.CaptureFixture[str], value: str
) -> None:
    table.show([{"mac": value}], columns=("mac",))

    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == ["MAC", value]


def test_a_table_of_any_length_keeps_the_columns_of_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "PIECE", 2)
    rows = ({"name": name, "port": 80} for name in ("a", "bbbbbb", "c", "wider than all", "\x1b"))

    text = "\n".join(table.lines(rows, columns=("name", "port")))

    assert text.splitlines() == [
        "NAME    PORT", "a       80", "bbbbbb  80", "c       80", "wider than all  80",
        "\\x1b    80",
    ]  # fmt: skip


def test_a_table_without_rows_has_its_heads() -> None:
    assert list(table.lines([], columns=("pod_name", "port"))) == ["POD NAME  PORT"]


def test_a_terminal_gets_no_colours_inside_of_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")

    table.show([{"mac": "02:cd:00:ab:00:01 7 True 'x'"}], columns=("mac",))

    assert capsys.readouterr().out.splitlines()[1].rstrip() == "02:cd:00:ab:00:01 7 True 'x'"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("pod\u202etxt.exe", r"pod\u202etxt.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("\udcff", r"\udcff"),
        ("a\u00a0b\u2028", r"a\xa0b\u2028"),
        ("Grüße, 世界", "Grüße, 世界"),
        ("a b", "a b"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(value: str, shown: str) -> None:
    assert escape(value) == shown
    assert cell(value) == shown
    assert cell([value, "x"]) == f"{shown} x"


def test_rows_of_a_table_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    table.show([{"container": "evil\x1b[1A\x1b[2K"}], columns=("container",))

    assert "\x1b" not in capsys.readouterr().out


def test_lines_and_notes_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Invocation().say("node \x1b[2J is forgotten")
    note("step \x07")

    assert capsys.readouterr() == ("node \\x1b[2J is forgotten\n", "step \\x07\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (True, "yes"), (False, "no"), (0, "0"), (["a", None], "a -"), ("", "")],
)
def test_cells(value: object, shown: str) -> None:
    assert cell(value) == shown


ROWS = [
    {
        "name": name,
        "cidrs": ["10.244.100.0/24", "fd00:10:244:aaaa:bbbb::/64"],
        "cause": "the route to it by eth0 is gone, and the agent mends it",
    }
    for name in ("node-one.example.net", "node-two.example.net")
]


def printed(width: int | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a terminal of a width shows; None: a pipe."""
    out = io.StringIO()
    made = Console(file=out, force_terminal=width is not None, width=width, no_color=True)
    monkeypatch.setattr(table, "console", lambda: made)
    table.show(ROWS, columns=tuple(ROWS[0]))
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def test_a_pipe_gets_a_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ROWS[0]["cause"] = f"{ROWS[0]['cause']} {'x ' * 200}"

    assert len(printed(None, monkeypatch).splitlines()) == 3


@pytest.mark.parametrize("width", range(20, 130))
def test_no_value_is_split_at_a_terminal_of_any_width(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    shown = printed(width, monkeypatch)

    wanted = Counter(word for row in ROWS for one in row.values() for word in cell(one).split())
    found = Counter(shown.split())
    assert all(found[word] >= count for word, count in wanted.items())
    if "NAME" not in shown.splitlines()[-3]:  # a table
        assert max(map(len, shown.splitlines())) <= width


def test_where_nothing_fits_each_value_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(40, monkeypatch).splitlines()

    assert lines[0] == "NAME   node-one.example.net"
    assert lines[1] == "CIDRS  10.244.100.0/24 fd00:10:244:aaaa:bbbb::/64"
    assert lines[3] == ""


FAULTS = [
    {"name": "uplink", "cause": "eth0 is down", "to_do": "set it up: ip link set eth0 up"},
    {"name": "store", "cause": "2 nodes in sqlite:/var/lib/pycni/cluster.db", "to_do": None},
]


def shown_at(width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a terminal of a width shows of faults."""
    out = io.StringIO()
    made = Console(file=out, force_terminal=True, width=width, no_color=True)
    monkeypatch.setattr(table, "console", lambda: made)
    table.show(FAULTS, columns=tuple(FAULTS[0]), below="to_do")
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()]


@pytest.mark.parametrize("width", [30, 60, 80])
def test_a_command_comes_whole_below_a_table_that_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    lines = shown_at(width, monkeypatch)

    assert lines[-3:] == ["", "TO DO", "uplink: set it up: ip link set eth0 up"]


def test_a_command_is_in_the_table_where_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = shown_at(100, monkeypatch)[0]

    assert heads.split() == ["NAME", "CAUSE", "TO", "DO"]


def test_json_is_ascii_and_has_addresses_as_text() -> None:
    text = to_json({"address": ip_address("10.0.0.1"), "path": Path("/x"), "name": "\x1b世"})

    assert text.isascii()
    assert json.loads(text) == {"address": "10.0.0.1", "path": "/x", "name": "\x1b世"}
    assert "\x1b" not in text
