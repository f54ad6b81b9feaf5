# SPDX-License-Identifier: Apache-2.0
"""Part "directories": the state and run directories can be written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pycni.errors import FileError
from pycni.faults import Fault, Weight
from pycni.files import make_private_directory
from pycni.settings import Settings
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "directories"
ROOM = 64 << 10
"""Bytes that must be free: records and locks are smaller."""


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Whether packets of pods flow is another question: without the directories no pod can be
    added or removed."""
    for path in wanted(d.settings):
        if fault := _look(path):
            yield fault


def unusable(settings: Settings) -> Iterator[Fault]:
    """Of those that are there: on a host that is no node, setup has yet to make the others."""
    for path in wanted(settings):
        if path.exists() and (fault := _look(path)):
            yield fault


def mend(d: Description, _: Seen) -> None:
    """Make those that are gone. Raises FileError."""
    for path in wanted(d.settings):
        make_private_directory(path)


def wanted(settings: Settings) -> tuple[Path, ...]:
    """The directories that a running node writes to."""
    return settings.state_dir, settings.run_dir


def _look(path: Path) -> Fault | None:
    try:
        found = os.statvfs(path)
    except FileNotFoundError:
        return _fault(path, "gone")
    except OSError as error:
        return _fault(path, f"not usable: {error.strerror}", todo=f"look at it: ls -ld {path}")
    if found.f_flag & os.ST_RDONLY:
        todo = f"make it writable: mount -o remount,rw $(findmnt -no TARGET -T {path})"
        return _fault(path, "on a file system that is mounted read-only", todo=todo)
    if found.f_bavail * found.f_frsize < ROOM:
        return _fault(path, "on a full file system", todo=f"free some space: df {path}")
    if found.f_files and not found.f_favail:
        return _fault(
            path, "on a file system without free inodes", todo=f"remove files: df -i {path}"
        )
    try:
        make_private_directory(path)
    except FileError as error:
        return Fault(PART, error.message, "", error.hint, Weight.DEGRADED)
    return None


def _fault(path: Path, found: str, *, todo: str = "") -> Fault:
    return Fault(PART, str(path), found, todo, Weight.DEGRADED)
