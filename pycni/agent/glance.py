# SPDX-License-Identifier: Apache-2.0
"""A look at what changes without an event, cheap enough for every two seconds: did anything
change?

Says only that, never what is right: the parts of the description do (upkeep/parts.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from loader import bpf, pins, tcx
from loader.closing import Closing
from loader.places import EGRESS, INGRESS
from pycni.dataplane import maps
from pycni.dataplane.maps import Self, Table
from pycni.errors import PycniError
from pycni.files import Mark, mark_of
from pycni.kernel import sysctl
from pycni.names import NAME_HEAD
from pycni.node.record import record_path
from pycni.upkeep import directories, installed, programs, sysctls
from pycni.upkeep.description import Description

MAPS = ("endpoints", "remotes", "vteps")
"""Whether they are empty is looked at."""


class Place(NamedTuple):
    """Where to look, which follows from the description; to find it out anew costs as much as to
    look."""

    description: Description
    directories: tuple[Path, ...]
    """With pins."""
    parameters: tuple[str, ...]
    written: tuple[Path, ...]
    """Directories that the agent writes to."""
    record: Path
    installed: tuple[Path, ...]
    """Files and directories of the container runtime's, and the list of them."""


class Glance(Closing):
    """What one thread saw at its last look. Owns descriptors of maps."""

    def __init__(self) -> None:
        self._before: object = None
        self._place: Place | None = None
        self._links: list[int] | None = None
        self._pins: list[Mark | None] = []
        """Of the directories: each pin that comes or goes changes its directory's times."""
        self._maps: list[bpf.Map] = []
        """MAPS, as far as they are there: they stay the same as long as the pins do."""
        self._own: Table[None, Self] | None = None
        """The map of this node's address."""

    def has_changed(self, d: Description) -> bool:
        """Whether anything is different from the last call; True at the first."""
        if self._place is None or self._place.description is not d:
            self._place = _place(d)
        if self._links is None:
            self._links = _list_links()
        picture = self._take(self._place, self._links)
        changed, self._before = picture != self._before, picture
        if changed:
            self._place = None  # which parameters matter depends on others
        return changed

    def forget(self) -> None:
        """Call this after a mend: the picture may show the damage, which may be done again."""
        self._before = None

    def forget_links(self) -> None:
        """Call this after events of links: there may be others. To list 250 takes milliseconds."""
        self._links = None

    def close(self) -> None:
        """Close the maps."""
        for one in (*self._maps, *([self._own] if self._own else [])):
            one.close()
        self._maps, self._own = [], None

    def _take(self, place: Place, links: Iterable[int]) -> object:
        pins_now = [mark_of(directory) for directory in place.directories]
        if pins_now != self._pins:
            self._open(place.description.settings.pin_root)
            self._pins = pins_now
        entry = self._own and self._own.get(None)
        return (
            pins_now,
            [one.is_empty() for one in self._maps],
            entry and entry.vtep,  # the entry has more members, which change
            [_programs(ifindex) for ifindex in links],
            [sysctl.read(name) for name in place.parameters],
            [_room(path) for path in place.written],
            mark_of(place.record),
            [mark_of(path) for path in place.installed],
        )

    def _open(self, root: Path) -> None:
        self.close()
        for name in MAPS:
            with suppress(OSError, ValueError):
                self._maps.append(bpf.Map.open_pinned(pins.map_path(root, name)))
        with suppress(OSError, ValueError, PycniError):
            self._own = maps.open_self(root)


def _place(d: Description) -> Place:
    root = d.settings.pin_root
    return Place(
        d,
        programs.directories(root),
        tuple(sysctls.wanted(d, ())),
        directories.wanted(d.settings),
        record_path(d.settings),
        tuple(_installed(d)),
    )


def _installed(d: Description) -> Iterator[Path]:
    yield installed.record_path(d.settings)
    if held := installed.load(d.settings):
        yield from held.paths
        yield held.listed.path.parent  # others put their lists there


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
