# SPDX-License-Identifier: Apache-2.0
"""tests/again.py: who fails beside other tests is tried alone, and said."""

from __future__ import annotations

import json

import pytest

import again

TESTS = """
def test_that_passes(): pass
def test_that_fails(): assert False
"""


@pytest.fixture
def failed(tmp_path, monkeypatch):
    """The tests that a run of pytest in a directory of its own has left as failed."""
    monkeypatch.setattr(again, "FAILED", tmp_path / ".pytest_cache/v/cache/lastfailed")
    (tmp_path / "test_two.py").write_text(TESTS)
    again.FAILED.parent.mkdir(parents=True)
    return lambda *names: again.FAILED.write_text(
        json.dumps({f"test_two.py::{name}": True for name in names})
    )


def test_one_that_passes_alone_is_named_as_unstable(failed, capfd):
    failed("test_that_passes")

    assert again.main([]) == 0

    said = capfd.readouterr().out
    assert "again: test_two.py::test_that_passes UNSTABLE: passes alone" in said
    assert said.endswith("\n1 passed, 0 failed\n")


def test_one_that_fails_alone_fails(failed, capfd):
    failed("test_that_passes", "test_that_fails")

    assert again.main([]) == 1

    said = capfd.readouterr().out
    assert "again: test_two.py::test_that_fails fails alone" in said
    assert said.endswith("\n1 passed, 1 failed\n")


def test_many_that_failed_are_not_tried_again(failed, capfd):
    failed(*(f"test_{number}" for number in range(again.MOST + 1)))

    assert again.main([]) == 1

    assert "4 tests failed; at most 3 are tried again" in capfd.readouterr().out


def test_a_run_that_left_no_failed_test_has_failed_otherwise(failed, capfd):
    failed()

    assert again.main([]) == 1

    assert "0 tests failed" in capfd.readouterr().out
