# SPDX-License-Identifier: Apache-2.0
"""The control groups below which a node's kubelet makes those of its pods.

With cgroup v1 there is one in each hierarchy. With v2 there is one in all, and its controllers must
be switched on in every group above (Documentation/admin-guide/cgroup-v2.rst, "Controlling
Controllers"); for the uppermost group this stays so.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from support import leftovers

CONTROLLERS = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")
"""That kubelet and the runtime use, where the kernel has them."""


def make(name: str) -> None:
    """The control group `name` in every hierarchy, right for kubelet."""
    tops = leftovers.hierarchies()
    first = [top for top in tops if not is_unified(top)]
    for top in first or tops:
        make_in(top, name)


def make_in(top: Path, name: str) -> None:
    """In one hierarchy. Raises OSError."""
    group = top / name
    group.mkdir(exist_ok=True)
    if is_unified(top):
        there = (top / "cgroup.controllers").read_text().split()
        wanted = " ".join(f"+{one}" for one in CONTROLLERS if one in there)
        for level in (top, group):
            (level / "cgroup.subtree_control").write_text(wanted)
    for file in ("cpuset.cpus", "cpuset.mems"):
        inherited = top / file  # v1: a new group has none, and no process can enter it
        if not is_unified(top) and inherited.exists():
            (group / file).write_text(inherited.read_text())


def remove(name: str) -> None:
    """With all below it. Raises OSError if a process is still in one."""
    leftovers.remove_cgroups(name)


def is_unified(top: Path) -> bool:
    """Whether that is cgroup v2."""
    with suppress(OSError):
        return (top / "cgroup.controllers").exists()
    return False
