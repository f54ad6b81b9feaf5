# SPDX-License-Identifier: Apache-2.0
"""What somebody took from a load: pins, and programs at their hooks. Looks, and attaches again.

"The programs" are those that are pinned now, by their numbers in the kernel: programs of another
load look alike, but have other maps. Compiles and loads nothing; that is `loader.load`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from . import attach, clsact, pins
from .attach import Way
from .bpf import Program
from .clsact import TrafficControl
from .errors import AttachError, GoneError, LoaderError
from .hooks import Hook
from .places import ENDPOINT_PROGRAMS, PROGRAMS
from .programs import Programs

INTERNAL = (".rodata", ".data", ".bss")
"""Ends of the names of maps that no pin belongs to."""


def lost_pins(root: Path) -> dict[str, str]:
    """Programs and maps that should be pinned and are not, each with what was found.

    A map counts as lost, too, if another map has its pin. Empty: all is there.
    """
    directory = pins.current(root)
    if directory is None or not directory.is_dir():
        return {"programs": "not loaded"}
    found: dict[str, str] = {}
    for name in PROGRAMS:
        try:
            with Program.open_pinned(directory / name) as program:
                used = program.maps()
        except FileNotFoundError:
            found[f"program {name}"] = "not pinned"
            continue
        for map_name, number in used.items():
            if not map_name.endswith(INTERNAL) and (state := _lost_map(root, map_name, number)):
                found[f"map {map_name}"] = state
    return found


def numbers(root: Path) -> dict[str, int]:
    """The kernel's numbers of the pinned programs. Raises as `Programs`."""
    with Programs(root) as programs:
        return {name: programs[name].info.id for name in PROGRAMS}


def missing(ipr: TrafficControl, hooks: Iterable[Hook], of: dict[str, int]) -> list[Hook]:
    """The hooks where the programs with these numbers (`numbers`) are not attached."""
    asked = list(hooks)
    found = zip(asked, clsact.numbers(ipr, asked), strict=True)  # what most endpoints have
    left = [hook for hook, number in found if number != of[hook.program]]
    return [hook for hook in left if not attach.runs(ipr, hook, of[hook.program])]


def stranger(ipr: TrafficControl, hook: Hook) -> bool:
    """Whether a program of ours is attached at a hook that is not the pinned one."""
    return hook.program in attach.attached(ipr, hook.ifindex)


def attach_again(root: Path, ipr: TrafficControl, hooks: Iterable[Hook]) -> None:
    """Attach the pinned programs at hooks where they are missing, or where others of ours are.

    An endpoint's program is attached by clsact, or by tcx if somebody else's qdisc has the place.
    Endpoints that are gone are skipped. Raises LoaderError, or FileNotFoundError if a pin is lost.
    """
    with pins.locked(root, exclusive=False), ExitStack() as owned:
        current = owned.enter_context(Programs(root))
        for hook in hooks:
            is_endpoint = hook.program in ENDPOINT_PROGRAMS
            try:
                added = _attach(ipr, hook, current)
            except GoneError:
                if is_endpoint:
                    continue
                raise
            if added and not is_endpoint:
                pins.mark_clsact(root, hook.ifindex)
            attach.leave_others(ipr, hook)


def _attach(ipr: TrafficControl, hook: Hook, current: Programs) -> bool:
    program = current[hook.program]
    try:
        return attach.attach(ipr, hook, program, current.fingerprint)
    except GoneError:
        raise
    except AttachError:
        if attach.way(hook) is not Way.CLSACT:
            raise
        try:
            return attach.attach(ipr, hook, program, current.fingerprint, by=Way.TCX)
        except LoaderError:
            pass
        raise


def _lost_map(root: Path, name: str, number: int) -> str:
    pinned = pins.open_map(root, name)
    if pinned is None:
        return "not pinned"
    with pinned:
        return "" if pinned.info.id == number else "another map than the programs use"
