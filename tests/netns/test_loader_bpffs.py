# SPDX-License-Identifier: Apache-2.0
"""The BPF file system: found, mounted, refused, unmounted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loader import libbpf, pins
from loader.bpf import Map, load_instructions
from loader.errors import BpffsError
from loader.probe import RETURN_ZERO, assemble
from support.kernel import bpffs, needs_root

pytestmark = needs_root


def test_bpffs_is_mounted_where_there_is_none_and_unmounted_again(tmp_path: Path) -> None:
    path = tmp_path / "bpf"

    mounted = pins.ensure_bpffs(path)
    try:
        assert mounted
        assert pins.is_bpffs(path)
        assert not pins.ensure_bpffs(path)
        assert not pins.ensure_bpffs(path / "pycni")
    finally:
        unmounted = pins.unmount_bpffs(path)

    assert unmounted
    assert not pins.is_bpffs(path)


def test_bpffs_with_pins_of_others_is_not_unmounted(tmp_path: Path) -> None:
    with bpffs(tmp_path) as path:
        (path / "theirs").mkdir()

        unmounted = pins.unmount_bpffs(path)

        assert not unmounted
        assert pins.is_bpffs(path)


def test_busy_bpffs_is_not_unmounted(tmp_path: Path) -> None:
    with bpffs(tmp_path) as path:
        user = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with pytest.raises(BpffsError, match="cannot unmount"):
                pins.unmount_bpffs(path)
        finally:
            os.close(user)


def test_directory_with_files_is_not_mounted_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(BpffsError, match="not empty") as error:
        pins.ensure_bpffs(tmp_path)

    assert error.value.hint == f"mount -t bpf bpffs {tmp_path}"
    assert not pins.is_bpffs(tmp_path)


def test_place_that_cannot_be_made_says_what_to_do() -> None:
    with pytest.raises(BpffsError, match="mount -t bpf bpffs /proc/none"):
        pins.ensure_bpffs(Path("/proc/none"))


def test_mount_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(libbpf, "mount_bpffs", refuse)

    with pytest.raises(BpffsError, match="run as root"):
        pins.ensure_bpffs(tmp_path / "bpf")


def test_programs_are_pinned_all_or_none(tmp_path: Path) -> None:
    with (
        bpffs(tmp_path) as root,
        load_instructions("one", assemble(RETURN_ZERO)) as one,
        load_instructions("dotted.name", assemble(RETURN_ZERO)) as refused,
    ):
        with pytest.raises(PermissionError):
            pins.pin_programs(root, "0123456789ab", [one, refused])

        assert list(root.glob("programs*")) == []


def test_program_is_not_taken_for_a_map(tmp_path: Path) -> None:
    with bpffs(tmp_path) as root, load_instructions("one", assemble(RETURN_ZERO)) as one:
        one.pin(root / "one")

        with pytest.raises(ValueError, match="not a map"):
            Map.open_pinned(root / "one")
