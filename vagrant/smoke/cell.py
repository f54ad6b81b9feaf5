# SPDX-License-Identifier: Apache-2.0
"""The cell: libvirt in a tree of its own, with its own mounts, network and processes.

This module runs as the first process of new namespaces (see __main__.py). Nothing has to be undone:
when this process ends, however it does, the kernel ends all others in the cell and drops its mounts
and its network.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smoke.box import IMAGES
from smoke.commands import Failed, run
from smoke.trees import ENVIRONMENT

TOOLS = (
    *("vagrant", "vagrant-libvirt", "libvirt-daemon-system", "libvirt-clients", "dnsmasq-base"),
    *(
        "qemu-system-x86",
        "qemu-utils",
        "openssh-client",
        "rsync",
        "iproute2",
        "iptables",
        "python3",
    ),
)

WRITABLE = ("run", "tmp", "root", "pycni", "var/tmp", "var/log", "var/lib/libvirt",
            "var/cache/libvirt", "etc/libvirt", "usr/share/vagrant-plugins")  # fmt: skip
"""Directories of the tree that get a copy of their own; all others are as in the cache."""

QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
"""
"""There is no systemd in the cell: no control groups, no log daemon."""
LIBVIRTD_CONF = """
unix_sock_group = "root"
auth_unix_rw = "none"
"""

READY_SECONDS = 120.0


@dataclass(frozen=True)
class Cell:
    """A tree as a root, prepared: `work` is where its own files are."""

    root: Path
    work: Path

    def run(self, *command: str, directory: str = "/", log: Path | None = None,
            env: Mapping[str, str] | None = None) -> str:  # fmt: skip
        """A program in the cell. Raises Failed."""
        inside = ("env", f"--chdir={directory}", *command)
        return run("chroot", self.root, *inside, env=ENVIRONMENT | dict(env or {}), log=log)


def build(tree: Path, work: Path) -> Cell:
    """Mount everything; the tree itself stays as it is."""
    root = work / "root"
    root.mkdir()
    (tree / "pycni").mkdir(exist_ok=True)
    run("mount", "--bind", tree, root)
    run("mount", "-o", "remount,bind,ro", root)
    for name in WRITABLE:
        own = work / "own" / name
        own.parent.mkdir(parents=True, exist_ok=True)
        if (tree / name).is_dir():
            run("cp", "--archive", tree / name, own)
        else:
            own.mkdir()
        run("mount", "--bind", own, root / name)
    run("mount", "--rbind", "/dev", root / "dev")
    run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", root / "dev/pts")
    run("mount", "-t", "proc", "proc", root / "proc")
    # Mounted from inside: a sysfs shows the interfaces of the namespace that mounted it.
    run("mount", "-t", "sysfs", "sysfs", root / "sys")
    run("ip", "link", "set", "lo", "up")
    return Cell(root, work)


@contextmanager
def libvirt(cell: Cell, boot_files: tuple[Path, ...]) -> Iterator[None]:
    """libvirtd, answering; the kernel and initial file system where its machines look for them."""
    (cell.root / "etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    (cell.root / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
    images = cell.root / IMAGES.relative_to("/")
    images.mkdir(parents=True, exist_ok=True)
    for file in boot_files:
        shutil.copy(file, images)
    with (cell.work / "libvirtd.log").open("w") as log:
        daemon = subprocess.Popen(
            ["chroot", cell.root, "libvirtd"], stdout=log, stderr=log, env=ENVIRONMENT
        )
    try:
        _wait(cell, daemon)
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def _wait(cell: Cell, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            cell.run("virsh", "--connect", "qemu:///system", "uri")
            return
        except Failed as error:
            if daemon.poll() is not None or time.monotonic() > deadline:
                said = (cell.work / "libvirtd.log").read_text()
                raise Failed(f"libvirtd does not answer: {said} {error}") from error
            time.sleep(0.5)
