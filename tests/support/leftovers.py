# SPDX-License-Identifier: Apache-2.0
"""What runtimes leave when they are killed or fail, taken away: processes, mounts, cgroups, files.

Everything is told by the private directory or the control group that only this session has.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from loader import libbpf

RESULTS = Path("/var/lib/cni")
"""Where libcni caches results; the runtimes here cannot be told another place."""

SHIM_SOCKETS = Path("/run/containerd/s")
"""Where containerd's shims listen, whatever its state directory is."""

NETNS = Path("/run/netns")
"""Where podman mounts namespaces, after it has bound the directory over itself."""

DEADLINE = 10.0


def found(directory: Path, mark: str) -> list[str]:
    """What there still is, a line each, of all that has `directory` or `mark` in its name."""
    return [
        *(f"process {pid}" for pid in _processes(directory, mark)),
        *(f"mount {path}" for path in mounts_below(directory)),
        *(f"cgroup {path}" for top in hierarchies() for path in top.glob(f"{mark}*")),
        *(f"file {path}" for path in RESULTS.rglob(f"{mark}*")),
    ]


def end_processes(directory: Path, cgroup: str) -> None:
    """SIGKILL to all that have `directory` on their command line or are in `cgroup`, until none
    is left."""
    deadline = time.monotonic() + DEADLINE
    while (pids := set(_processes(directory, cgroup))) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def unmount_below(directory: Path) -> None:
    """Unmount everything below `directory`, the last mounted first."""
    for path in reversed(mounts_below(directory)):
        with suppress(OSError):
            libbpf.unmount(path)


def mounts_below(directory: Path) -> list[Path]:
    """Mount points below `directory`, in the order they were mounted."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [Path(line.split()[1]) for line in lines]
    return [path for path in points if path.is_relative_to(directory)]


def unmount_if_empty(directory: Path) -> None:
    """Unmount a directory that is bound over itself, and remove it, unless somebody uses it."""
    if mounts_below(directory) != [directory] or any(directory.iterdir()):
        return
    with suppress(OSError):
        libbpf.unmount(directory)
        directory.rmdir()


def remove_cgroups(name: str) -> None:
    """Remove a control group and those below it, in every hierarchy there is."""
    for top in cgroups(name):
        for path in sorted((top, *(p for p in top.rglob("*") if p.is_dir())), reverse=True):
            with suppress(FileNotFoundError):
                path.rmdir()


def cgroups(name: str) -> list[Path]:
    """The directories of a control group: one with cgroup v2, one per hierarchy with v1."""
    return [top / name for top in hierarchies() if (top / name).is_dir()]


def hierarchies() -> list[Path]:
    """Where control groups are mounted: once with cgroup v2, a hierarchy each with v1."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def forget_results(*marks: str) -> None:
    """Remove cached results whose file name, of network, container and interface, has a mark."""
    for path in RESULTS.rglob("*"):
        if any(mark in path.name for mark in marks):
            path.unlink()
    remove_if_empty(RESULTS / "results", RESULTS)


def remove_shim_sockets(socket: Path, namespace: str, *containers: str) -> None:
    """Remove the sockets of shims that were killed.

    Each is named by a hash of containerd's socket, its namespace and the container (containerd 1.6,
    runtime/v2/shim, SocketAddress).
    """
    for container in containers:
        digest = hashlib.sha256(os.fsencode(socket / namespace / container)).hexdigest()
        (SHIM_SOCKETS / digest).unlink(missing_ok=True)
    remove_if_empty(SHIM_SOCKETS, SHIM_SOCKETS.parent)


def remove_directory(directory: Path) -> None:
    """Unmount what is mounted below a directory and remove it."""
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)


def remove_if_empty(*directories: Path) -> None:
    """Remove directories, the innermost first, as far as nobody has anything in them."""
    for directory in directories:
        with suppress(OSError):
            directory.rmdir()


def _processes(directory: Path, cgroup: str) -> Iterator[int]:
    mark = os.fsencode(directory)
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        if pid == os.getpid():
            continue
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if mark in command or f"/{cgroup}" in (process / "cgroup").read_text():
                yield pid
