# SPDX-License-Identifier: Apache-2.0
"""Private directories and files: modes, atomic replacement, refusals."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pycni.errors import FileError
from pycni.files import make_private_directory, remove_file, replace_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    directory = tmp_path / "one" / "two"

    make_private_directory(directory)

    assert mode(directory) == 0o700


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    make_private_directory(tmp_path)

    assert mode(tmp_path) == 0o755


def test_a_directory_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(FileError, match=r"is writable by others \(mode 0777\)"):
        make_private_directory(tmp_path)


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(FileError, match=f"belongs to user {owner}, not to user {owner + 1}"):
        make_private_directory(tmp_path)


def test_a_file_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    blocker = tmp_path / "state"
    blocker.touch()

    with pytest.raises(FileError, match="cannot be made: File exists"):
        make_private_directory(blocker)


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_with_mode_0600(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "record"
    file.write_text("old")
    file.chmod(0o644)

    replace_file(file, b"new", durable=durable)

    assert file.read_text() == "new"
    assert mode(file) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "record"
    file.write_text("old")

    def disk_full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)

    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        replace_file(file, b"new")

    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    assert file.read_text() == "old"


def test_what_a_killed_writer_left_is_removed_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace_file(path, b"whole")
    os.link(path, tmp_path / ".state.json.new")

    remove_file(path)
    remove_file(path)

    assert list(tmp_path.iterdir()) == []
