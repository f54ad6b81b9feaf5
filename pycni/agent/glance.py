# SPDX-License-Identifier: Apache-2.0
"""A look at what changes without an event, cheap enough for once a second: did anything change?

Says only that, never what is right: the parts of the description do (upkeep/parts.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from loader import bpf, tcx
from loader.places import EGRESS, INGRESS
from pycni.dataplane import maps
from pycni.errors import PycniError
from pycni.kernel import sysctl
from pycni.names import NAME_HEAD
from pycni.node.record import record_path
from pycni.upkeep import directories, parameters
from pycni.upkeep.description import Description

MAPS = ("endpoints", "remotes", "vteps")
"""Whether they are empty is looked at."""


class Glance:
    """What one thread saw at its last look."""

    def __init__(self) -> None:
        self._before: object = None
        self._links: list[int] | None = None

    def has_changed(self, d: Description) -> bool:
        """Whether anything is different from the last call; True at the first."""
        if self._links is None:
            self._links = _list_links()
        picture = _take(d, self._links)
        changed, self._before = picture != self._before, picture
        return changed

    def forget(self) -> None:
        """Call this after a mend: the picture may show the damage, which may be done again."""
        self._before = None

    def forget_links(self) -> None:
        """Call this after events of links: there may be others. To list 250 takes milliseconds."""
        self._links = None


def mark_of(path: Path) -> tuple[int, int] | None:
    """What tells a file from a later one at its place; None if there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _take(d: Description, links: Iterable[int]) -> object:
    root = str(d.settings.pin_root)
    return (
        [_pins(directory) for directory in (root, f"{root}/maps", f"{root}/programs")],
        [_is_empty(f"{root}/maps/{name}") for name in MAPS],
        _own_entry(d),
        [_programs(ifindex) for ifindex in links],
        [sysctl.read(name) for name in parameters.wanted(d, ())],
        [_room(path) for path in directories.wanted(d.settings)],
        mark_of(record_path(d.settings)),
    )


def _pins(directory: str) -> list[tuple[str, int]]:
    with suppress(OSError), os.scandir(directory) as entries:
        return sorted((entry.name, entry.inode()) for entry in entries)
    return []


def _is_empty(pin: str) -> bool | None:
    """None if it cannot be said."""
    with suppress(OSError, ValueError), bpf.Map.open_pinned(Path(pin)) as opened:
        return opened.is_empty()
    return None


def _own_entry(d: Description) -> object:
    """What the programs take for this node's address; it has more members, which change."""
    with suppress(OSError, PycniError), maps.open_self(d.settings.pin_root) as own:
        entry = own.get(None)
        return entry and entry.vtep
    return None


def _list_links() -> list[int]:
    """Where programs may be attached by tcx: to pods' links they seldom are."""
    return [ifindex for ifindex, name in socket.if_nameindex() if not name.startswith(NAME_HEAD)]


def _programs(ifindex: int) -> list[int]:
    """Those of tcx: filters have events."""
    return tcx.programs(ifindex, INGRESS) + tcx.programs(ifindex, EGRESS)


def _room(path: Path) -> tuple[int, bool] | None:
    """Flags of the file system, and whether it is full."""
    with suppress(OSError):
        found = os.statvfs(path)
        return found.f_flag, found.f_bavail * found.f_frsize < directories.ROOM
    return None
