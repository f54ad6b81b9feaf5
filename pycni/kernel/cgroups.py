# SPDX-License-Identifier: Apache-2.0
"""Where this process sees the root of control groups v2: cgroups(7). Mounts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pycni.kernel import mounts

OF_V2 = "cgroup.controllers"
"""A file in each control group of v2, and in none of v1."""
NOT_IN_ROOT = "cgroup.type"
"""A file in each but the root (Documentation/admin-guide/cgroup-v2.rst)."""


@dataclass(frozen=True)
class Root:
    """The highest control group that this process sees."""

    path: Path
    is_whole: bool
    """Whether every process of the machine is in it or below it; not so of what a control group
    namespace shows, or of one that is mounted alone."""


def root() -> Root | None:
    """The true root if some mount shows it, else what the first mount shows; None if none is of
    v2."""
    points = [mount.point for mount in mounts.read() if mount.kind == "cgroup2"]
    found = [
        Root(point, not (point / NOT_IN_ROOT).exists())
        for point in points
        if (point / OF_V2).exists()  # nothing is mounted over it
    ]
    return next((one for one in found if one.is_whole), found[0] if found else None)
