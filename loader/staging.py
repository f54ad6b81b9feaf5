"""Prepares a load beside the running one: verified programs and their maps, nothing pinned yet.

Reads pins and creates kernel objects that vanish with their descriptors; changes nothing that is
in use, so whatever fails here needs no undo.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from . import btf, mprog, pins
from .bpf import Map, Object, Program
from .objects import PROGRAMS, Objects


@dataclass(frozen=True)
class Staged:
    """Loaded programs, and the maps among theirs that are not pinned yet, by name."""

    programs: tuple[Program, ...]
    created: dict[str, Map]


def stage(
    root: Path, objects: Objects, config: bytes, fingerprint: str, owned: ExitStack
) -> Staged:
    """Load all programs; maps that are pinned and fit are shared, others made and filled.

    Descriptors are closed by `owned`. Raises VerifierError, KernelError or LayoutError.
    """
    maps: dict[str, Map] = {}
    created: dict[str, Map] = {}
    outgrown: dict[str, Map] = {}
    programs = []
    for program in PROGRAMS:
        with Object.open(objects.path(program)) as opened:
            opened.set_rodata(config)
            opened.set_rodata(mprog.identity(fingerprint), variable="identity")
            types = btf.parse(opened.btf())
            declared = opened.maps()
            for name, wanted in declared.items():
                have = maps.get(name) or pins.open_map(root, name)
                if have is None:
                    continue
                if name not in maps:
                    owned.enter_context(have)
                if pins.fits(have, wanted, types):
                    maps[name] = have
                    opened.reuse_map(name, have.fd)
                else:
                    outgrown[name] = have
            opened.load()
            for name in declared.keys() - maps.keys():
                maps[name] = created[name] = owned.enter_context(opened.map(name))
            programs.append(owned.enter_context(opened.program(program)))
    for name, old in outgrown.items():
        pins.copy_entries(old, created[name])
    return Staged(tuple(programs), created)


def is_complete(root: Path, objects: Objects, fingerprint: str) -> bool:
    """Whether `fingerprint` is current and every program and map of it is still pinned."""
    directory = pins.current(root)
    if directory is None or not directory.is_dir() or pins.fingerprint(directory) != fingerprint:
        return False
    for program in PROGRAMS:
        with Object.open(objects.path(program)) as opened:
            wanted = [pins.map_path(root, name) for name in opened.maps()]
        if not all(path.exists() for path in (directory / program, *wanted)):
            return False
    return True
