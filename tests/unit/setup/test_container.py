# SPDX-License-Identifier: Apache-2.0
"""What a container must share with its host, by what mountinfo and the file systems say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from loader import pins
from pycni import locks
from pycni.errors import FileError, SetupError
from pycni.kernel import mounts, sysctl
from pycni.settings import NODE_NAME, Settings
from pycni.setup import container

BPFFS = Path("/sys/fs/bpf")
ROOT = "28 1 8:1 / / rw,relatime - overlay overlay rw\n"
SYSFS = "22 28 0:21 / /sys ro,nosuid - sysfs sysfs ro\n"
BPF = "30 22 0:30 / /sys/fs/bpf rw {} - bpf bpf rw\n"


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Have these mounts."""

    def have(text: str) -> None:
        (tmp_path / "mountinfo").write_text(text)
        monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")

    return have


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch):
    """Have a file system with these flags at this path (statvfs(3))."""
    plain = os.statvfs

    def have(path: Path, flag: int) -> None:
        def look(asked: Any) -> Any:
            found = list(plain(asked))
            if asked == path:
                found[8] |= flag
            return os.statvfs_result(found)

        monkeypatch.setattr(container.os, "statvfs", look)

    return have


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(node_name="a", state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    for directory in (made.state_dir, made.run_dir):
        directory.mkdir(mode=0o700)
    return made


@pytest.mark.parametrize("tag", ["master:4", "shared:9", "shared:9 master:4"])
def test_a_bpffs_that_comes_from_the_host_is_accepted(see, tag: str) -> None:
    see(ROOT + SYSFS + BPF.format(tag))

    container.refuse_private_bpffs(BPFFS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ROOT + SYSFS + BPF.format(""), "the mount at /sys/fs/bpf is private to this container"),
        (ROOT + SYSFS, "/sys is of type sysfs"),
        ("", "nothing is mounted"),
        (
            ROOT + BPF.format("master:4") + "31 30 0:40 / /sys/fs/bpf rw - tmpfs tmpfs rw\n",
            "/sys/fs/bpf is of type tmpfs",
        ),
    ],
)
def test_another_bpffs_is_refused_and_what_is_there_is_said(see, text: str, found: str) -> None:
    see(text)

    with pytest.raises(SetupError, match="is not the host's") as caught:
        container.refuse_private_bpffs(BPFFS)

    assert caught.value.details == found
    assert "HostToContainer" in caught.value.hint


@pytest.mark.parametrize("text", ["", ROOT + SYSFS, ROOT + SYSFS + BPF.format("master:4")])
def test_a_bpffs_is_mounted_in_the_hosts_sysfs_only(see, text: str) -> None:
    see(text)
    container.refuse_other_directory(BPFFS)
    see(ROOT + SYSFS + "31 22 8:2 /volumes/bpffs /sys/fs/bpf rw shared:7 - ext4 /dev/vda rw\n")
    container.refuse_other_directory(Path("/run/bpf"))  # a place that the settings name

    with pytest.raises(SetupError, match="is not the host's: another directory") as caught:
        container.refuse_other_directory(BPFFS)

    assert caught.value.details == "/sys/fs/bpf is of type ext4"
    assert "by hostPath" in caught.value.hint


def test_a_second_agent_is_refused_by_name(settings: Settings) -> None:
    container.refuse_another_agent(settings)

    with (
        locks.agent_lock(settings.run_dir),
        pytest.raises(SetupError, match="another agent") as caught,
    ):
        container.refuse_another_agent(settings)

    assert "systemctl disable --now pycni-agent" in caught.value.hint
    container.refuse_another_agent(settings)  # it has gone


def test_a_read_only_directory_is_named(flags, tmp_path: Path) -> None:
    container.refuse_read_only(tmp_path)
    flags(tmp_path, os.ST_RDONLY)

    with pytest.raises(FileError, match=f"the host's directory {tmp_path} is read-only"):
        container.refuse_read_only(tmp_path)


def test_a_directory_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be used") as caught:
        container.refuse_read_only(tmp_path / "none")

    assert "hostPath" in caught.value.hint


def test_a_directory_without_execution_is_named(flags, tmp_path: Path) -> None:
    container.refuse_no_execution(tmp_path)
    flags(tmp_path, os.ST_NOEXEC)

    with pytest.raises(FileError, match="noexec"):
        container.refuse_no_execution(tmp_path)


def test_containerd_needs_loopback_beside_the_plugin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    container.warn_without_loopback(tmp_path)

    assert "the plugin loopback is missing" in caplog.text
    assert "containernetworking-plugins" in caplog.text

    caplog.clear()
    (tmp_path / "loopback").touch()
    container.warn_without_loopback(tmp_path)

    assert caplog.text == ""


def test_parameters_must_be_there_and_writable(
    flags, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysctl, "PROC_SYS", tmp_path)
    with pytest.raises(FileError, match="there are no kernel parameters"):
        container.refuse_read_only_parameters()
    (tmp_path / container.PARAMETERS).mkdir(parents=True)
    container.refuse_read_only_parameters()

    flags(tmp_path / container.PARAMETERS, os.ST_RDONLY)
    with pytest.raises(FileError, match="read-only") as caught:
        container.refuse_read_only_parameters()

    assert f"set {sysctl.PLACE}=/host/proc/sys" in caught.value.hint


def test_nothing_is_checked_where_no_daemonset_serves_the_host(
    see, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(ROOT)
    monkeypatch.delenv(NODE_NAME, raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")  # a lab may be in a pod

    container.check(settings)

    monkeypatch.setenv(NODE_NAME, "node-one")
    with pytest.raises(SetupError, match="is not the host's"):
        container.check(settings)


def test_preparing_mounts_a_bpffs_and_checks_all_directories(
    see, flags, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted: list[Path] = []

    def mount(path: Path) -> bool:
        mounted.append(path)
        see(ROOT + BPF.format("shared:3"))
        return True

    see(ROOT + SYSFS)
    monkeypatch.setattr(pins, "ensure_bpffs", mount)
    directories = {"bin_dir": tmp_path / "bin", "conf_dir": tmp_path / "conf"}
    for directory in directories.values():
        directory.mkdir()

    assert container.prepare(settings, **directories) is True
    assert mounted == [BPFFS]

    for directory in (*directories.values(), settings.state_dir, settings.run_dir):
        flags(directory, os.ST_RDONLY)
        with pytest.raises(FileError, match=str(directory)):
            container.prepare(settings, **directories)
    flags(directories["bin_dir"], os.ST_NOEXEC)
    with pytest.raises(FileError, match="noexec"):
        container.prepare(settings, **directories)
    assert mounted == [BPFFS], "nothing is mounted on a host that is refused"


def test_nothing_is_mounted_where_the_volume_is_not_the_hosts(
    see, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    see(ROOT + SYSFS + "31 22 0:50 / /sys/fs/bpf rw shared:7 - tmpfs tmpfs rw\n")
    monkeypatch.setattr(pins, "ensure_bpffs", pytest.fail)

    with pytest.raises(SetupError, match="is not the host's"):
        container.prepare(settings, bin_dir=tmp_path, conf_dir=tmp_path)
