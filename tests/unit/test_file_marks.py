# SPDX-License-Identifier: Apache-2.0
"""pycni/files.py: a mark tells a file from each later one."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pycni.files import mark_of


def test_changes_at_the_same_time_have_different_marks(tmp_path: Path) -> None:
    """The kernel's clock for files stands still for milliseconds."""
    now = time.time_ns()
    os.utime(tmp_path, ns=(now, now))
    before = mark_of(tmp_path)
    (tmp_path / "pin").touch()
    os.utime(tmp_path, ns=(now, now))

    assert mark_of(tmp_path) != before


def test_what_nobody_changes_keeps_its_mark(tmp_path: Path) -> None:
    then = time.time_ns() - 40_000_000
    os.utime(tmp_path, ns=(then, then))

    assert mark_of(tmp_path) == mark_of(tmp_path)


def test_what_is_gone_has_no_mark(tmp_path: Path) -> None:
    assert mark_of(tmp_path / "gone") is None
