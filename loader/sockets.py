# SPDX-License-Identifier: Apache-2.0
"""Programs for sockets of the host, attached to a control group: a pinned link for each hook.

    <root>/sockets/<program>    links; each keeps its program attached without a process

Links of others at the same control group stay: the kernel runs all of them. A program is replaced
in its link, so a hook is never without one. Source: bpf(2) BPF_LINK_CREATE, BPF_LINK_UPDATE;
kernel/bpf/cgroup.c.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from . import btf, libbpf, migration, mprog, pins
from .bpf import Object, Program
from .errors import AttachError
from .maps import Descriptor, open_pin
from .migration import Fate
from .objects import Objects
from .places import SOCKETS

HOOKS = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
}
"""The programs, each with its enum bpf_attach_type (include/uapi/linux/bpf.h)."""


class Link(Descriptor):
    """A program at a hook of a control group."""

    @classmethod
    def open_pinned(cls, path: Path) -> Link:
        """The link pinned at `path`; OSError ENOENT if there is none, ValueError if no link."""
        return cls(open_pin(path, "link"))

    @property
    def program(self) -> int:
        """The kernel's number of the program."""
        return libbpf.link_info(self.fd)[0]

    @property
    def cgroup(self) -> int:
        """Which control group it is at, as its directory's inode; 0: at none any more."""
        return libbpf.link_info(self.fd)[1]


@dataclass(frozen=True)
class Identity:
    """What is written into the programs: struct config, and the fingerprint of the load."""

    config: bytes
    fingerprint: str


def load(
    root: Path,
    objects: Objects,
    identity: Identity,
    cgroup: Path,
    *,
    owned: ExitStack,
    steps: ExitStack,
) -> bool:
    """Have the programs of `objects` at every hook of a control group; False if they were there.

    Their maps are those pinned at `root`, so this comes after the others' load. `steps` gets what
    undoes it, `owned` the descriptors that takes. Raises LoaderError or OSError.
    """
    if not lost(root, identity.fingerprint, cgroup):
        return False
    programs = _load(root, objects, identity, owned, steps)
    group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    owned.callback(os.close, group)
    if not is_loaded(root):
        (root / SOCKETS).mkdir(mode=0o700)
        steps.callback((root / SOCKETS).rmdir)
    for program in programs:
        pin = root / SOCKETS / program.name
        if not _replace(pin, program, cgroup, owned, steps):
            _attach(pin, program, cgroup, group, steps)
    return True


def is_loaded(root: Path) -> bool:
    """Whether there is something for `unload`."""
    return (root / SOCKETS).is_dir()


def unload(root: Path) -> None:
    """Undo of `load`: every link of ours, and their map. No error if there is none."""
    if not is_loaded(root):
        return
    for pin in (root / SOCKETS).iterdir():
        _remove(pin)
    (root / SOCKETS).rmdir()
    pins.map_path(root, SOCKETS).unlink(missing_ok=True)


def lost(root: Path, fingerprint: str, cgroup: Path | None) -> dict[str, str]:
    """The hooks that do not run the programs of that load, with what was found; empty: all do.

    With a `cgroup`, at that control group. Raises OSError.
    """
    wanted = cgroup.stat().st_ino if cgroup is not None else None
    found = {name: _state(root, name, fingerprint, wanted) for name in HOOKS}
    return {name: state for name, state in found.items() if state}


def _state(root: Path, name: str, fingerprint: str, wanted: int | None) -> str:
    try:
        with Link.open_pinned(root / SOCKETS / name) as link:
            number, cgroup = link.program, link.cgroup
    except FileNotFoundError:
        return "gone"
    if not cgroup:
        return "detached"
    if wanted is not None and cgroup != wanted:
        return "at another control group"
    with Program.open_id(number) as program:
        mark = mprog.IDENTITY.search(program.constants())
        if program.name != name or mark is None or mark[1].decode() != fingerprint:
            return "that of another load"
        used = program.maps()
    others = [one for one, id in used.items() if "." not in one and not _is_pinned(root, one, id)]
    return f"with another map {others[0]} than the pinned one" if others else ""


def _is_pinned(root: Path, name: str, number: int) -> bool:
    pinned = pins.open_map(root, name)
    if pinned is None:
        return False
    with pinned:
        return pinned.info.id == number


def _load(
    root: Path, objects: Objects, identity: Identity, owned: ExitStack, steps: ExitStack
) -> list[Program]:
    """The programs, loaded; what they know of sockets is forgotten if its layout is another one."""
    with Object.open(objects.path(SOCKETS)) as opened:
        opened.set_rodata(identity.config)
        opened.set_rodata(mprog.identity(identity.fingerprint), variable="identity")
        types = btf.parse(opened.btf())
        pinned = {name: pins.open_map(root, name) for name in opened.maps()}
        for name, present in pinned.items():
            if present is None:
                continue
            owned.enter_context(present)
            if (
                name != SOCKETS
                or migration.fate(present, opened.maps()[name], types) is Fate.SHARED
            ):
                opened.reuse_map(name, present.fd)
        opened.load()
        with opened.map(SOCKETS) as own:
            if not _is_pinned(root, SOCKETS, own.info.id):
                pins.replace_map(root, SOCKETS, own)
                steps.callback(pins.put_back, root, SOCKETS, pinned[SOCKETS])
        return [owned.enter_context(opened.program(name)) for name in HOOKS]


def _replace(pin: Path, program: Program, cgroup: Path, owned: ExitStack, steps: ExitStack) -> bool:
    """Put a program into the link that is at the control group; False if there is none."""
    try:
        with Link.open_pinned(pin) as present:
            if present.cgroup != cgroup.stat().st_ino:
                return False
            before = owned.enter_context(Program.open_id(present.program))
            steps.callback(_update, pin, before)
            libbpf.update_link(present.fd, program.fd)
    except FileNotFoundError:
        return False
    return True


def _attach(pin: Path, program: Program, cgroup: Path, group: int, steps: ExitStack) -> None:
    """Make a link, in place of one that is elsewhere."""
    try:
        fd = libbpf.create_link(program.fd, group, HOOKS[program.name])
    except OSError as error:
        hints = {
            errno.EPERM: "run as root; or another program there allows none beside it: "
            f"bpftool cgroup show {cgroup}",
            errno.EINVAL: "the kernel needs CONFIG_CGROUP_BPF",
        }
        what = f"cannot attach {program.name} to the control group {cgroup}: {error.strerror}"
        raise AttachError(what, hint=hints.get(error.errno or 0, "")) from error
    with Link(fd) as made:
        following = pin.with_name(f"{pin.name}-next")
        following.unlink(missing_ok=True)
        made.pin(following)
        steps.callback(_remove, pin)
        following.rename(pin)


def _update(pin: Path, program: Program) -> None:
    with Link.open_pinned(pin) as link:
        libbpf.update_link(link.fd, program.fd)


def _remove(pin: Path) -> None:
    """Detach at once: of a pin alone, the kernel lets go a little later."""
    with Link.open_pinned(pin) as link, suppress(OSError):  # its control group may be gone
        libbpf.detach_link(link.fd)
    pin.unlink()
