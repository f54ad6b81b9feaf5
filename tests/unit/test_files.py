# SPDX-License-Identifier: Apache-2.0
"""Private directories and files: modes, atomic replacement, refusals."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycni import files
from pycni.errors import FileError
from pycni.files import (
    make_own_directory,
    make_private_directory,
    read_regular,
    refuse_irregular,
    refuse_own_directory,
    remove_file,
    replace_file,
)

MARKS = frozenset({"locks", "agent.sock"})


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


@pytest.mark.parametrize("names", [[], ["locks"], ["agent.sock", "something-new"]], ids=str)
def test_a_directory_of_our_own_is_closed(tmp_path: Path, names: list[str]) -> None:
    tmp_path.chmod(0o755)
    for name in names:
        (tmp_path / name).touch()

    make_own_directory(tmp_path, marks=MARKS)

    assert mode(tmp_path) == 0o700


def test_an_open_directory_with_files_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    (tmp_path / "photos").touch()

    with pytest.raises(FileError, match=r"\(mode 0750\) is open to others") as caught:
        make_own_directory(tmp_path, marks=MARKS)

    assert str(tmp_path / "pycni") in caught.value.hint
    assert mode(tmp_path) == 0o750


def test_a_directory_of_the_system_is_refused_whatever_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that an older pycni has used: to close it would lock everybody else out."""
    monkeypatch.setattr(files, "SYSTEM_DIRECTORIES", frozenset({tmp_path}))
    tmp_path.chmod(0o755)
    (tmp_path / "locks").touch()
    (tmp_path / "link").symlink_to(tmp_path)

    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(FileError):
            make_own_directory(path, marks=MARKS)
    assert mode(tmp_path) == 0o755


def test_a_private_directory_with_files_of_others_is_nobodys_business(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "photos").touch()

    make_own_directory(tmp_path, marks=MARKS)


def test_a_directory_that_cannot_be_closed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "chmod", read_only)

    with pytest.raises(FileError, match="cannot be closed to others: Read-only"):
        make_own_directory(tmp_path, marks=MARKS)


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


def test_a_file_may_come_in_pieces(tmp_path: Path) -> None:
    replace_file(tmp_path / "record", iter([b"one", b"", b" two"]))

    assert (tmp_path / "record").read_bytes() == b"one two"


def test_pieces_that_fail_leave_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "record").write_text("old")

    def pieces() -> Iterator[bytes]:
        yield b"new"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        replace_file(tmp_path / "record", pieces())

    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    assert (tmp_path / "record").read_text() == "old"


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


def test_a_regular_file_is_read_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")

    assert read_regular(tmp_path / "link", at_most=7) == b"content"


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "socket", "huge"])
def test_what_is_no_regular_file_of_that_size_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "huge":
        path.touch()
        os.truncate(path, files.REGULAR_MAX + 1)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))

    said = "it has more than" if kind == "huge" else f"it is a {kind}, not a regular file"
    for read in (read_regular, refuse_irregular):
        with pytest.raises(OSError, match=said) as caught:
            read(path)

        assert caught.value.filename == str(path)


def test_a_file_in_proc_is_read_though_it_has_no_size() -> None:
    assert read_regular(Path("/proc/self/status")).startswith(b"Name:")


def test_a_pipe_that_the_shell_opened_is_read_only_where_that_is_meant() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"content")
    os.close(writer)
    path = Path(f"/dev/fd/{reader}")

    with pytest.raises(OSError, match="it is a pipe"):
        read_regular(path)

    assert read_regular(path, pipes=True) == b"content"
    os.close(reader)


def test_a_pipe_with_a_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="it is a pipe"):
        read_regular(tmp_path / "pipe", pipes=True)


def test_what_would_be_refused_is_told_before_and_nothing_is_changed(tmp_path: Path) -> None:
    strangers, ours = tmp_path / "strangers", tmp_path / "ours"
    for directory, name in ((strangers, "letter"), (ours, "locks")):
        directory.mkdir(mode=0o755)
        (directory / name).touch()

    refuse_own_directory(ours, marks=MARKS)
    refuse_own_directory(tmp_path / "new", marks=MARKS)

    assert (mode(ours), (tmp_path / "new").exists()) == (0o755, False)
    with pytest.raises(FileError, match="has files that are not pycni's"):
        refuse_own_directory(strangers, marks=MARKS)
    ours.chmod(0o777)
    with pytest.raises(FileError, match="is writable by others"):
        refuse_own_directory(ours, marks=MARKS)
    with pytest.raises(FileError, match="locks is no directory"):
        refuse_own_directory(ours / "locks" / "x", marks=MARKS)
