# SPDX-License-Identifier: Apache-2.0
"""What becomes of a pinned map when other programs declare it in another way.

A map of the same layout is shared. One of another size, or of another of the KEYED kinds, is copied
into a new one. For any other difference the new map begins empty, and the caller of the loader, who
knows what belongs in it, fills it before a program uses it. Knows no pins.
"""

from __future__ import annotations

from enum import Enum, auto

from . import bpf, btf
from .errors import LayoutError

KEYED = frozenset({"hash", "lru_hash", "lpm_trie"})
"""Kinds of maps whose entries mean the same in another map."""

OF_PROGRAMS = frozenset({"percpu_array", "percpu_hash", "lru_percpu_hash", "ringbuf"})
"""Kinds that only programs write to: counters and events, which may begin empty."""


class Fate(Enum):
    """What a load does with a pinned map."""

    SHARED = auto()
    COPIED = auto()
    EMPTIED = auto()
    REFILLED = auto()


def fate(have: bpf.Map, wanted: bpf.MapInfo, types: btf.Types | None) -> Fate:
    """What becomes of `have` when programs declare `wanted`, with the types of their object."""
    have_types = btf.types_of_map(have.info)
    if have_types is None or types is None:
        have_types = types = None
    if btf.map_layout(have.info, have_types) == btf.map_layout(wanted, types):
        if have.info.max_entries == wanted.max_entries:
            return Fate.SHARED
        if have.info.type_name in KEYED:
            return Fate.COPIED
    same_entries = btf.entry_layout(have.info, have_types) == btf.entry_layout(wanted, types)
    if types is not None and same_entries and {have.info.type_name, wanted.type_name} <= KEYED:
        return Fate.COPIED
    return Fate.EMPTIED if wanted.type_name in OF_PROGRAMS else Fate.REFILLED


def difference(have: bpf.Map, wanted: bpf.Map) -> str:
    """Both layouts, in two lines."""
    layouts = (btf.map_layout(one.info, btf.types_of_map(one.info)) for one in (have, wanted))
    return "pinned: {}\nneeded: {}".format(*layouts)


def copy_entries(old: bpf.Map, new: bpf.Map) -> None:
    """Fill a new map of another size or kind with the entries of the old.

    LayoutError if the entries are too many.
    """
    try:
        for key, value in old.items():
            new.update(key, value)
    except OSError as error:
        raise LayoutError(
            f"the entries of map {old.info.name} do not fit into {new.info.max_entries}",
            details=error.strerror or "",
            hint=f"the pinned map takes {old.info.max_entries}: keep at least what is in use",
        ) from error
