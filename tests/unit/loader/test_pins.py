# SPDX-License-Identifier: Apache-2.0
"""Links and locks of the pin directory; they need no BPF file system."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from loader import pins
from loader.errors import BpffsError

ONE = "programs-aaaaaaaaaaaa"
TWO = "programs-bbbbbbbbbbbb"


def may_lock(root: Path, how: int) -> bool:
    fd = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_attaching_waits_for_a_load_but_not_for_attaching(tmp_path: Path) -> None:
    with pins.locked(tmp_path, exclusive=True):
        assert not may_lock(tmp_path, fcntl.LOCK_SH)
    with pins.locked(tmp_path, exclusive=False):
        assert may_lock(tmp_path, fcntl.LOCK_SH)
        assert not may_lock(tmp_path, fcntl.LOCK_EX)
    assert may_lock(tmp_path, fcntl.LOCK_EX)


def test_lock_of_nothing_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(BpffsError, match="pycni setup"),
        pins.locked(tmp_path / "a", exclusive=True),
    ):
        pass


def test_switch_replaces_the_link_and_removes_it(tmp_path: Path) -> None:
    assert pins.current(tmp_path) is None

    pins.switch(tmp_path, tmp_path / ONE)
    pins.switch(tmp_path, tmp_path / TWO)

    assert pins.current(tmp_path) == tmp_path / TWO
    assert [entry.name for entry in tmp_path.iterdir()] == ["programs"]
    pins.switch(tmp_path, None)
    assert pins.current(tmp_path) is None


def test_fingerprint_is_part_of_the_name() -> None:
    assert pins.fingerprint(Path(TWO)) == "bbbbbbbbbbbb"
    assert pins.fingerprint(Path(f"{TWO}-repaired")) == "bbbbbbbbbbbb"


def test_plain_directory_is_not_a_bpffs(tmp_path: Path) -> None:
    assert not pins.is_bpffs(tmp_path)


def test_added_qdiscs_are_remembered_until_forgotten(tmp_path: Path) -> None:
    pins.mark_clsact(tmp_path, 4)
    pins.mark_clsact(tmp_path, 4)

    assert pins.marked_clsact(tmp_path) == {4}
    assert pins.unmark_clsact(tmp_path, 4)
    assert not pins.unmark_clsact(tmp_path, 4)
    assert pins.marked_clsact(tmp_path) == set()
