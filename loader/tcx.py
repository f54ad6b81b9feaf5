"""Hooks of a kernel with tcx (6.6): programs at an interface, run before the filters of any qdisc.

Attached without a link, so a program lives with its interface and needs neither process nor pin. A
program of ours is known by its name and its constant `identity`, `pycni:<fingerprint>`; programs of
others are never replaced or removed. Works in the calling thread's network namespace.
Source: Documentation/bpf/libbpf/program_types.rst, kernel/bpf/tcx.c.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import libbpf
from .bpf import Program
from .hooks import DIRECTION, EGRESS, INGRESS, PREFIX, Hook, refused

ATTACH_TYPES = {INGRESS: 46, EGRESS: 47}  # enum bpf_attach_type: include/uapi/linux/bpf.h
LOOPBACK = 1
IDENTITY = re.compile(PREFIX.encode() + rb":([0-9a-f]+)\0")


def probe() -> bool:
    """Whether the kernel has tcx. OSError says why not."""
    return libbpf.query(LOOPBACK, ATTACH_TYPES[INGRESS]) is not None


def available() -> bool:
    """Whether the kernel has tcx, and the caller may use it."""
    try:
        return probe()
    except OSError:
        return False


def identity(fingerprint: str) -> bytes:
    """Value of the constant `identity` of a program that is to be known by `fingerprint`."""
    return f"{PREFIX}:{fingerprint}\0".encode()


def attach(hook: Hook, program: Program) -> None:
    """Attach, ahead of others' programs, or atomically replace our older one where that is.

    GoneError if the interface does not exist, AttachError if the kernel refuses.
    """
    kind = ATTACH_TYPES[DIRECTION[hook.program]]
    try:
        for present, _ in _ours(hook.ifindex, DIRECTION[hook.program], hook.program):
            if present.info.id != program.info.id:
                libbpf.attach(program.fd, hook.ifindex, kind, replace=present.fd)
            return
        libbpf.attach(program.fd, hook.ifindex, kind)
    except OSError as error:
        hints = {errno.ERANGE: "the kernel takes no more programs there: detach others"}
        raise refused(hook, error.errno or 0, str(error.strerror), hints=hints) from error


def detach(hook: Hook) -> bool:
    """Remove our program from a hook; False if there was none, or no such interface."""
    place, found = DIRECTION[hook.program], False
    with _gone_is_empty():
        for present, _ in _ours(hook.ifindex, place, hook.program):
            libbpf.detach(present.fd, hook.ifindex, ATTACH_TYPES[place])
            found = True
    return found


def attached(ifindex: int) -> dict[str, str]:
    """Our programs on an interface, each with its fingerprint; empty if there is no interface."""
    found = {}
    with _gone_is_empty():
        for place in (INGRESS, EGRESS):
            for program, fingerprint in _ours(ifindex, place):
                found[program.name] = fingerprint
    return found


def programs(ifindex: int, place: int) -> list[int]:
    """Ids of all programs, ours and others', at INGRESS or EGRESS, in the order they run."""
    with _gone_is_empty():
        return libbpf.query(ifindex, ATTACH_TYPES[place])
    return []


def _ours(ifindex: int, place: int, name: str = "") -> Iterator[tuple[Program, str]]:
    """Our programs at a place (named `name`), open, with their fingerprints."""
    for number in libbpf.query(ifindex, ATTACH_TYPES[place]):
        with suppress(FileNotFoundError), Program.open_id(number) as program:
            known = DIRECTION.get(program.name) == place and name in ("", program.name)
            mark = IDENTITY.search(program.constants()) if known else None
            if mark is not None:
                yield program, mark[1].decode()


@contextmanager
def _gone_is_empty() -> Iterator[None]:
    """For what finds nothing on an interface that is gone, or on a kernel without tcx."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
            raise
