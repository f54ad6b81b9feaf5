# SPDX-License-Identifier: Apache-2.0
"""Values as the settings file has them are read back as they were."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.setup.translation import toml

VALUES = st.recursive(
    st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b-c", "d_1"]), inner),
)


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    text = toml.document({"key": value})

    assert tomllib.loads(text) == {"key": value}


@pytest.mark.parametrize(
    "value", ["\U0001f600", "\x7f\x80", 'a"b\\c', "\u2028", "\uffff\U00010000"]
)
def test_a_text_is_one_line_of_ascii(value: str) -> None:
    text = toml.document({"key": value})

    assert text.isascii()
    assert len(text.splitlines()) == 1
    assert tomllib.loads(text) == {"key": value}
