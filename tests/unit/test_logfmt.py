# SPDX-License-Identifier: Apache-2.0
"""Log values: plain words stay, everything else becomes a JSON string on one line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pycni import logfmt
from pycni.logfmt import LONGEST, JsonFormatter, LogfmtFormatter, quoted, split

MOMENT = 1795978800.25
"""2026-11-29T19:00:00.25Z"""
HEAD = "time=2026-11-29T19:00:00.250Z level=warning module=loops "


@pytest.mark.parametrize("value", ["eth0", "192.0.2.1/24", "fd00::1", "sqlite:///x.db", "42"])
def test_a_plain_word_stays_as_it_is(value: str) -> None:
    assert quoted(value) == value


@pytest.mark.parametrize(
    "value",
    ["", "two words", "a=b", 'say "no"', "back\\slash", "ü", "\udc80", "line\nstatus=0", "\x1b[2J"],
)
def test_anything_else_is_a_json_string_of_printable_ascii(value: str) -> None:
    shown = quoted(value)

    assert json.loads(shown) == value
    assert shown.isascii()
    assert shown.isprintable()


def test_a_long_value_is_cut() -> None:
    assert quoted("x" * 5000) == "x" * LONGEST + "..."


def test_values_that_are_no_text_are_shown_as_text() -> None:
    assert quoted(7) == "7"
    assert quoted(OSError(2, "No such file")) == '"[Errno 2] No such file"'


def record(message: str, *arguments: object, bug: Exception | None = None) -> logging.LogRecord:
    made = logging.LogRecord(
        "pycni", logging.WARNING, "/x/loops.py", 1, message, arguments,
        (type(bug), bug, bug.__traceback__) if bug else None,
    )  # fmt: skip
    made.created, made.msecs = MOMENT, 250.0
    return made


def bug() -> Exception:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        return error


def test_a_line_of_logfmt_begins_with_utc_level_and_module() -> None:
    line = LogfmtFormatter().format(record("loop failed loop=%s error=%s", "store", quoted("a b")))

    assert line == HEAD + 'loop failed loop=store error="a b"'


@pytest.mark.parametrize("formatter", [LogfmtFormatter(), JsonFormatter()])
def test_an_event_is_one_line_whatever_is_in_it(formatter: logging.Formatter) -> None:
    line = formatter.format(record("%s", "first\nsecond \x1b[2J", bug=bug()))

    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert "Traceback" in line


def test_a_document_has_the_pairs_as_keys() -> None:
    text = "loop failed loop=%s error=%s again_in_s=%.1f tries=%d"

    line = JsonFormatter().format(record(text, "store", quoted('say "no"\n'), 1.5, 3))

    assert json.loads(line) == {
        "time": "2026-11-29T19:00:00.250Z",
        "level": "warning",
        "module": "loops",
        "message": "loop failed",
        "loop": "store",
        "error": 'say "no"\n',
        "again_in_s": "1.5",
        "tries": "3",
    }


def test_a_pair_replaces_nothing_of_the_head() -> None:
    document = json.loads(JsonFormatter().format(record("x level=info time=0 message=y")))

    assert (document["level"], document["message"]) == ("warning", "x")


@pytest.mark.parametrize(
    ("message", "sentence", "pairs"),
    [
        ("stopping", "stopping", {}),
        ("serving node=n1", "serving", {"node": "n1"}),
        ('a x="1 y=2" z=3', "a", {"x": "1 y=2", "z": "3"}),
        ("empty x= y=1", "empty", {"x": "", "y": "1"}),
        ("store = 'x' is a setting", "store = 'x' is a setting", {}),
        ('half x="open', 'half x="open', {}),
        (r'bad x="\q"', "bad", {"x": r'"\q"'}),
        ("url=sqlite:/x?a=b", "", {"url": "sqlite:/x?a=b"}),
    ],
)
def test_a_message_is_split_into_sentence_and_pairs(
    message: str, sentence: str, pairs: dict[str, str]
) -> None:
    assert split(message) == (sentence, pairs)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


def test_a_second_configuration_replaces_the_first_and_no_handler_of_others(
    root: logging.Logger, capsys: Any
) -> None:
    ours = (LogfmtFormatter, JsonFormatter)
    others = [one for one in root.handlers if not isinstance(one.formatter, ours)]

    logfmt.configure(level="debug", form="logfmt")
    logfmt.configure(level="error", form="json")
    logging.getLogger("pycni.x").warning("not shown")
    logging.getLogger("pycni.x").error("shown key=1")

    assert [handler for handler in root.handlers if handler in others] == others
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["key"] == "1"
