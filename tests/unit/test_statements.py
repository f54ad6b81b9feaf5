# SPDX-License-Identifier: Apache-2.0
"""Each statement about Services has a test, or a reason why it has none."""

from __future__ import annotations

from pathlib import Path

import pytest

import statements
from statements import collect


def test_every_statement_has_a_test_or_a_reason() -> None:
    """S-175"""
    assert collect().faults == []


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """Three statements: one that a test shows, one with a reason, one with neither."""
    (tmp_path / "statements.toml").write_text('last = 3\n[without_a_test]\nS-002 = "not there"\n')
    (tmp_path / "test_one.py").write_text('def test_it():\n    """S-001: so it is."""\n')
    return tmp_path


def faults(tests: Path) -> list[str]:
    return collect(tests, tests / "statements.toml").faults


def test_a_statement_with_neither_is_named(tests: Path) -> None:
    assert faults(tests) == ["S-003: no test names it, and no reason is given"]


def test_a_reason_that_a_test_overtook_is_named(tests: Path) -> None:
    (tests / "test_two.py").write_text('CASES = [param(1, id="S-003 x")]\nNAMES = "S-002"\n')

    assert faults(tests) == ["S-002: there is a reason why it has no test, and test_two.py"]


def test_a_number_that_is_none_is_named(tests: Path) -> None:
    (tests / "test_two.py").write_text('def test_it():\n    """S-003, S-004"""\n')

    assert faults(tests) == ["S-004: there is no such statement"]


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert statements.main() == 0

    lines = capsys.readouterr().out.splitlines()
    assert "S-001" in lines
    assert lines[1].startswith("       unit/services/")
    assert lines[-1].endswith(f"of {len(collect().numbers)} statements are shown by tests")
