# SPDX-License-Identifier: Apache-2.0
"""Where directories cannot be, by what is there. Conflicts of settings: test_settings.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pycni.directories import obstacles, refuse_unwritable
from pycni.errors import FileError


def test_what_can_be_made_has_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    paths = {"a": tmp_path, "b": tmp_path / "x/y", "c": tmp_path / "link/z"}

    assert list(obstacles(paths)) == []
    refuse_unwritable(tmp_path / "x/y")


def test_each_obstacle_is_named(tmp_path: Path) -> None:
    file, loose = tmp_path / "file", tmp_path / "loose"
    file.touch()
    loose.symlink_to(tmp_path / "nothing")

    found = obstacles({"a": file, "b": file / "x/y", "c": loose, "d": tmp_path})

    assert list(found) == [
        ("a", "is there, and is no directory"),
        ("b", f"cannot be made: {file} is no directory"),
        ("c", "is there, and is no directory"),
    ]


def test_a_directory_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(FileError, match="/dev/null is no directory"):
        refuse_unwritable(Path("/dev/null/x"))


def test_a_file_system_that_is_mounted_read_only_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = os.statvfs(tmp_path)
    read_only = os.statvfs_result((*found[:8], found.f_flag | os.ST_RDONLY, *found[9:]))
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)

    with pytest.raises(FileError, match="Read-only file system"):
        refuse_unwritable(tmp_path / "x")


def test_a_file_system_that_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)

    with pytest.raises(FileError, match="Input/output error"):
        refuse_unwritable(tmp_path)


def test_a_directory_of_others_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(FileError, match=f"may not write to {tmp_path}"):
        refuse_unwritable(tmp_path / "x")
