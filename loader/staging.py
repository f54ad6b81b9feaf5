# SPDX-License-Identifier: Apache-2.0
"""Prepares a load beside the running one: verified programs and their maps, nothing pinned yet.

Reads pins and creates kernel objects that vanish with their descriptors; changes nothing that is
in use, so whatever fails here needs no undo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from . import btf, migration, mprog, pins
from .bpf import Map, Object, Program
from .errors import REINSTALL, LayoutError
from .maps import MapInfo
from .migration import Fate
from .objects import Objects
from .places import PROGRAMS


@dataclass(frozen=True)
class Staged:
    """Loaded programs and their maps by name.

    `created` names the maps that are not pinned yet, `refilled` those of them that must be filled
    before the programs run, each with its old and new layout in words. `unfilled` names those that
    had no pin, and that not only programs write to.
    """

    programs: tuple[Program, ...]
    maps: Mapping[str, Map]
    created: frozenset[str]
    refilled: Mapping[str, str]
    unfilled: frozenset[str]


def stage(
    root: Path, objects: Objects, config: bytes, fingerprint: str, owned: ExitStack
) -> Staged:
    """Load all programs; maps that are pinned and fit are shared, others made and filled.

    Descriptors are closed by `owned`. Raises VerifierError, KernelError or LayoutError.
    """
    pinned: dict[str, Map] = {}
    maps: dict[str, Map] = {}
    fates: dict[str, Fate] = {}
    programs = []
    for program in PROGRAMS:
        with Object.open(objects.path(program)) as opened:
            opened.set_rodata(config)
            opened.set_rodata(mprog.identity(fingerprint), variable="identity")
            types = btf.parse(opened.btf())
            for name, wanted in opened.maps().items():
                if name not in maps:
                    have = pins.open_map(root, name)
                    wanted = _sized(opened, wanted, have, objects.sizes)
                    if have is None:
                        continue
                    pinned[name] = owned.enter_context(have)
                    fates[name] = migration.fate(have, wanted, types)
                    if objects.sizes.get(name) == 0 and fates[name] is not Fate.SHARED:
                        fates[name] = Fate.EMPTIED
                    if fates[name] is not Fate.SHARED:
                        continue
                    maps[name] = have
                else:
                    wanted = _sized(opened, wanted, maps[name], objects.sizes)
                    if migration.fate(maps[name], wanted, types) is not Fate.SHARED:
                        raise LayoutError(
                            f"{program} declares map {name} unlike the other programs",
                            hint=REINSTALL,
                        )
                opened.reuse_map(name, maps[name].fd)
            opened.load()
            for name in opened.maps().keys() - maps.keys():
                maps[name] = owned.enter_context(opened.map(name))
            programs.append(owned.enter_context(opened.program(program)))
    created = maps.keys() - {name for name, one in fates.items() if one is Fate.SHARED}
    for name, one in fates.items():
        if one is Fate.COPIED:
            migration.copy_entries(pinned[name], maps[name])
    refilled = {
        name: migration.difference(pinned[name], maps[name])
        for name, one in fates.items()
        if one is Fate.REFILLED
    }
    unfilled = {
        name
        for name in maps.keys() - fates.keys()
        if maps[name].info.type_name not in migration.OF_PROGRAMS
    }
    return Staged(tuple(programs), maps, frozenset(created), refilled, frozenset(unfilled))


def is_complete(root: Path, objects: Objects, fingerprint: str) -> bool:
    """Whether `fingerprint` is current, every program and map of it is pinned, and the programs use
    those maps: a load that was killed may have pinned others."""
    directory = pins.current(root)
    if directory is None or not directory.is_dir() or pins.fingerprint(directory) != fingerprint:
        return False
    declared: dict[str, MapInfo] = {}
    for program in PROGRAMS:
        with Object.open(objects.path(program)) as opened:
            names = tuple(opened.maps())
            declared |= opened.maps()
        if not (directory / program).exists() or not _has_pinned(root, directory / program, names):
            return False
    return all(
        _has_size(root, declared[name], entries)
        for name, entries in objects.sizes.items()
        if name in declared
    )


def _has_size(root: Path, declared: MapInfo, entries: int) -> bool:
    pinned = pins.open_map(root, declared.name)
    if pinned is None:
        return False
    with pinned:
        present = pinned.info.max_entries
        return present >= entries if entries else present == declared.max_entries


def _sized(
    opened: Object, declared: MapInfo, have: Map | None, sizes: Mapping[str, int]
) -> MapInfo:
    """The map as it is to be loaded, of the size that it must have."""
    if not sizes.get(declared.name):
        return declared
    present = have.info.max_entries if have is not None else 0
    entries = max(declared.max_entries, sizes[declared.name], present)
    if entries != declared.max_entries:
        opened.set_max_entries(declared.name, entries)
    return replace(declared, max_entries=entries)


def _has_pinned(root: Path, pin: Path, names: Iterable[str]) -> bool:
    with Program.open_pinned(pin) as program:
        used = program.maps()
    for name in names:
        pinned = pins.open_map(root, name)
        if pinned is None:
            return False
        with pinned:
            if used.get(name, pinned.info.id) != pinned.info.id:
                return False
    return True
