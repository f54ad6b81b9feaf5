# SPDX-License-Identifier: Apache-2.0
"""A control group of a test's own, as the only one of v2 that the test and its processes see.

What pycni attaches to "the root of control groups" is then attached below the machine's. Needs the
mount namespace of a worker (worker.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pycni.kernel import mounts
from support.labs import BASE, SESSION
from support.worker import MS_BIND, mount, unmount

OF_THIS_PROCESS = Path("/proc/self/cgroup")


@contextmanager
def own() -> Iterator[Path]:
    """This process is in it meanwhile, and so is what it starts. Gives its directory."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("mounts of its own: run pytest with -n 1")
    top = BASE / "cgroup"
    with ExitStack() as undo:
        top.mkdir(parents=True)
        undo.callback(top.rmdir)
        mount("cgroup2", top, kind="cgroup2")
        undo.callback(unmount, top)
        group, before = top / SESSION, top / _of_this_process()
        group.mkdir()
        undo.callback(group.rmdir)
        _move(group)
        undo.callback(_move, before)
        for one in mounts.read():
            if one.kind == "cgroup2" and one.point.exists():
                mount(str(group), one.point, flags=MS_BIND)
                undo.callback(unmount, one.point)
        yield top


def _of_this_process() -> str:
    """Below the root of control groups v2; cgroups(7), "/proc files"."""
    (line,) = (one for one in OF_THIS_PROCESS.read_text().splitlines() if one.startswith("0::"))
    return line.removeprefix("0::/")


def _move(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))
