# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/mounts.py: whether a mount is seen by others, by what mountinfo says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.kernel import mounts
from pycni.kernel.mounts import Mount, parse, why_hidden

BPFFS = Path("/sys/fs/bpf")
HOST = (
    "22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
    "28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
)
ALONE = HOST.replace(" shared:7", "").replace(" shared:1", " master:1")
IN_NETNS = ALONE.replace("sysfs sysfs", "sysfs blue")


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Have these mounts, a named namespace `blue`, and a parent in this mount namespace or not."""
    names = tmp_path / "netns"
    names.mkdir()
    (names / "blue").touch()
    monkeypatch.setattr(mounts, "NETNS_DIRS", (names,))

    def have(text: str, *, parent: int | None = 1) -> None:
        file = tmp_path / "mountinfo"
        file.write_text(text)
        monkeypatch.setattr(mounts, "MOUNTINFO", file)
        monkeypatch.setattr(
            mounts, "_namespace", lambda path: 1 if path == mounts.OWN_NAMESPACE else parent
        )

    return have


def test_a_line_is_read() -> None:
    line = "22 28 0:21 / /sys rw,nosuid shared:7 master:1 - sysfs blue rw,noatime"

    assert parse(line) == Mount(
        Path("/sys"), shared=True, follows=True, kind="sysfs", source="blue"
    )
    assert parse(line.replace(" / /sys", " /a//deleted /sys")).root == "/a//deleted"
    assert not parse(line.replace("shared:7 ", "")).shared
    assert not parse(line.replace("master:1 ", "")).follows
    assert not parse("22 28 0:21 / /shared:1 rw - ext4 x rw").shared


def test_a_mount_below_a_shared_one_is_seen_by_all(see) -> None:  # type: ignore[no-untyped-def]
    see(HOST, parent=2)

    assert why_hidden(BPFFS) == ""


def test_the_innermost_mount_counts_in_whatever_order(see) -> None:  # type: ignore[no-untyped-def]
    private = "40 22 0:40 / /sys/fs rw - tmpfs none rw\n"
    covered = "41 40 0:41 / /sys/fs rw shared:9 - tmpfs none rw\n"

    see(private + HOST, parent=2)
    assert why_hidden(BPFFS) != ""
    see(private + covered + HOST, parent=2)
    assert why_hidden(BPFFS) == ""


def test_ip_netns_exec_is_named(see) -> None:  # type: ignore[no-untyped-def]
    see(IN_NETNS)

    assert "`ip netns exec blue`" in why_hidden(BPFFS)


def test_a_sysfs_with_another_source_is_no_netns(see) -> None:  # type: ignore[no-untyped-def]
    see(ALONE.replace("sysfs sysfs", "sysfs none"))

    assert why_hidden(BPFFS) == ""


def test_a_namespace_of_this_command_alone_is_said(see) -> None:  # type: ignore[no-untyped-def]
    see(ALONE, parent=2)

    assert "not that of the process that started it" in why_hidden(BPFFS)


def test_a_namespace_of_its_own_that_the_parent_shares_is_fine(see) -> None:  # type: ignore[no-untyped-def]
    see(ALONE, parent=1)

    assert why_hidden(BPFFS) == ""


def test_a_parent_that_may_not_be_looked_at_is_no_reason(see) -> None:  # type: ignore[no-untyped-def]
    see(ALONE, parent=None)

    assert why_hidden(BPFFS) == ""


def test_the_mounts_of_this_process_can_be_read() -> None:
    assert Path("/") in {mount.point for mount in mounts.read()}
