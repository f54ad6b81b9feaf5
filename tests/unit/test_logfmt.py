# SPDX-License-Identifier: Apache-2.0
"""Log values: plain words stay, everything else becomes a JSON string on one line."""

from __future__ import annotations

import json

import pytest

from pycni.logfmt import LONGEST, quoted


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
