# SPDX-License-Identifier: Apache-2.0
"""A machine of its own for each worker of pytest-xdist.

Tests look at the whole machine: its links, its pins, /run. A worker therefore leaves the machine's
network and mount namespaces before its first test (namespaces(7)). Everything that it starts is in
its namespaces, too; they end with the last of these processes. Process IDs, control groups and
files outside of PRIVATE stay common: names in there begin with the session's.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

CLONE_NEWNS = 0x20000
CLONE_NEWNET = 0x40000000
"""linux/sched.h."""

MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
"""linux/mount.h."""

PRIVATE = (Path("/run"), Path("/var/lib/cni"))
"""Directories that runtimes and other plugins write to, and that they cannot be told to leave."""

CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def private_directories() -> Iterator[None]:
    """PRIVATE is there to be mounted on; what was made for it is removed in the end."""
    made = [directory for directory in PRIVATE if not directory.exists()]
    for directory in made:
        directory.mkdir(parents=True)
    try:
        yield
    finally:
        for directory in made:
            directory.rmdir()


def leave_the_machine() -> None:
    """Move this thread, and all that it will start, into namespaces of their own. Needs root.

    Raises OSError. To be called by the main thread: /proc/self is about that one.
    """
    _check(_libc().unshare(CLONE_NEWNET | CLONE_NEWNS))
    mount("none", Path("/"), flags=MS_REC | MS_PRIVATE)
    for directory in PRIVATE:
        mount("tmpfs", directory, kind="tmpfs")
    Path("/run/lock").mkdir()
    _renew_sysfs()
    mount("bpf", Path("/sys/fs/bpf"), kind="bpf")
    with IPRoute() as ipr:
        (loopback,) = ipr.link_lookup(ifname="lo")
        ipr.link("set", index=loopback, state="up")


def _renew_sysfs() -> None:
    """/sys/class/net shows the namespace that sysfs was mounted in; control groups stay."""
    kept = Path("/run/cgroup")
    kept.mkdir()
    mount(str(CGROUPS), kept, flags=MS_BIND | MS_REC)
    mount("sysfs", Path("/sys"), kind="sysfs")
    mount(str(kept), CGROUPS, flags=MS_BIND | MS_REC)
    unmount(kept)
    kept.rmdir()


def mount(source: str, target: Path, *, kind: str = "", flags: int = 0) -> None:
    """mount(2). Raises OSError."""
    done = _libc().mount(
        source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), None
    )
    _check(done, f"mount {target}")


def unmount(target: Path) -> None:
    """umount2(2), with all below it. Raises OSError."""
    _check(_libc().umount2(os.fsencode(target), 2), f"unmount {target}")  # MNT_DETACH


def _check(result: int, what: str = "") -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
