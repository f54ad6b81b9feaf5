# SPDX-License-Identifier: Apache-2.0
"""Part "programs": the BPF file system, and the pins of programs and maps on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from loader import pins, repair
from pycni.faults import Fault, Weight
from pycni.files import mark_of
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "programs"


def directories(root: Path) -> tuple[Path, ...]:
    """Where pins are: each that comes or goes changes its directory's mark. Pure."""
    return root, root / "maps", root / "programs"


def state(d: Description, _: Seen) -> object:
    """Of the file system, and of the directories. What maps a program uses never changes. Raises
    OSError."""
    flags = os.statvfs(d.settings.bpffs).f_flag
    return flags, [mark_of(one) for one in directories(d.settings.pin_root)]


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """What is attached goes on without pins, but nothing can be added or changed."""
    root = d.settings.pin_root
    if pins.needs_bpffs(d.settings.bpffs):
        yield Fault(PART, str(d.settings.bpffs), "no BPF file system any more")
        return
    if os.statvfs(d.settings.bpffs).f_flag & os.ST_RDONLY:
        todo = f"make it writable: mount -o remount,rw {d.settings.bpffs}"
        found = "mounted read-only, so nothing can be added or changed"
        yield Fault(PART, str(d.settings.bpffs), found, todo, Weight.DEGRADED)
        return
    lost = repair.lost_pins(root)
    if "programs" in lost:
        thing = "the dataplane of this node"
        yield Fault(PART, thing, f"not loaded: nothing is pinned in {root}")
        return
    for thing, found in lost.items():
        yield Fault(PART, thing, found)
