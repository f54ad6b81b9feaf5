# SPDX-License-Identifier: Apache-2.0
"""Directories: what is wrong with one, in a sentence with its name and what to do."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.settings import Settings
from pycni.upkeep import directories
from pycni.upkeep.description import Description

UNUSED: Any = None


@pytest.fixture
def description(tmp_path: Path) -> Description:
    settings = Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    made = Description(settings, UNUSED)
    directories.mend(made, UNUSED)
    return made


def test_directories_as_setup_makes_them_are_right(description: Description) -> None:
    assert list(directories.faults(description, UNUSED)) == []


def test_a_directory_that_is_gone_is_made_again(description: Description) -> None:
    state = description.settings.state_dir
    state.rmdir()

    (fault,) = directories.faults(description, UNUSED)
    directories.mend(description, UNUSED)

    assert (fault.sentence, fault.todo) == (f"{state} is gone", "")
    assert list(directories.faults(description, UNUSED)) == []


def test_a_directory_that_others_may_write_to_is_a_persons_to_close(
    description: Description,
) -> None:
    state = description.settings.state_dir
    state.chmod(0o777)

    (fault,) = directories.faults(description, UNUSED)

    assert fault.sentence == f"the directory {state} is writable by others (mode 0777)"
    assert fault.todo == f"close it: chmod 0700 {state}"


def test_a_directory_that_setup_has_yet_to_make_is_not_unusable(description: Description) -> None:
    settings = description.settings
    settings.run_dir.rmdir()
    assert list(directories.unusable(settings)) == []

    settings.state_dir.chmod(0o777)

    (fault,) = directories.unusable(settings)
    assert str(settings.state_dir) in fault.sentence


@pytest.mark.parametrize("setting", ["state_dir", "run_dir"])
@pytest.mark.parametrize(
    ("change", "words", "command"),
    [
        ({"f_bavail": 1}, "is on a full file system", "df"),
        ({"f_files": 100, "f_favail": 0}, "is on a file system without free inodes", "df -i"),
        ({"f_flag": os.ST_RDONLY}, "is on a file system that is mounted read-only", "mount"),
    ],
    ids=["full", "no inodes", "read-only"],
)
def test_a_file_system_that_takes_nothing_is_a_persons_to_mend(
    description: Description,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    change: dict[str, int],
    words: str,
    command: str,
) -> None:
    hurt = getattr(description.settings, setting)
    room = {"f_bavail": 1 << 20, "f_frsize": 4096, "f_files": 0, "f_favail": 0, "f_flag": 0}

    def statvfs(path: Path) -> SimpleNamespace:
        return SimpleNamespace(**room | (change if path == hurt else {}))

    monkeypatch.setattr(os, "statvfs", statvfs)

    (fault,) = directories.faults(description, UNUSED)

    assert fault.sentence == f"{hurt} {words}"
    assert f"{command} " in fault.todo
