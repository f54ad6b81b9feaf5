# SPDX-License-Identifier: Apache-2.0
"""Attach points that take several programs in an order: those of tcx and of netkit.

Attached without a link, so a program lives with its interface and needs neither process nor pin. A
program of ours is known by its name and its constant `identity`, `pycni:<fingerprint>`; programs of
others are never replaced or removed. An attach point is an interface and an enum bpf_attach_type
(include/uapi/linux/bpf.h). Works in the calling thread's network namespace.
Source: Documentation/bpf/libbpf/program_types.rst, kernel/bpf/mprog.c.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import libbpf
from .bpf import Program
from .hooks import PREFIX, Hook, refused
from .places import DIRECTION

LOOPBACK = 1
IDENTITY = re.compile(PREFIX.encode() + rb":([0-9a-f]+)\0")
NOTHING_THERE = (
    errno.ENODEV,
    errno.ENOENT,
    errno.EINVAL,  # a kernel that does not know the attach type
    errno.ENXIO,  # an interface without such attach points
    errno.EACCES,  # the end of a netkit pair that is not the host's
    errno.EOPNOTSUPP,  # a netkit interface without a peer
)


def identity(fingerprint: str) -> bytes:
    """Value of the constant `identity` of a program that is to be known by `fingerprint`."""
    return f"{PREFIX}:{fingerprint}\0".encode()


def attach(hook: Hook, kind: int, program: Program) -> None:
    """Attach, ahead of others' programs, or atomically replace our older one where that is.

    GoneError if the interface does not exist, AttachError if the kernel refuses.
    """
    try:
        for present, _ in _ours(hook.ifindex, kind, DIRECTION[hook.program]):
            if present.name != hook.program:
                continue
            if present.info.id != program.info.id:
                libbpf.attach(program.fd, hook.ifindex, kind, replace=present.fd)
            return
        libbpf.attach(program.fd, hook.ifindex, kind)
    except OSError as error:
        hints = {errno.ERANGE: "the kernel takes no more programs there: detach others"}
        raise refused(hook, error.errno or 0, str(error.strerror), hints=hints) from error


def detach(hook: Hook, kind: int) -> bool:
    """Remove our program; False if there was none, or no such interface."""
    found = False
    with _gone_is_empty():
        for present, _ in _ours(hook.ifindex, kind, DIRECTION[hook.program]):
            if present.name == hook.program:
                libbpf.detach(present.fd, hook.ifindex, kind)
                found = True
    return found


def attached(ifindex: int, kind: int, direction: int) -> dict[str, str]:
    """Our programs of a direction, each with its fingerprint; empty if there is no interface."""
    with _gone_is_empty():
        return {one.name: fingerprint for one, fingerprint in _ours(ifindex, kind, direction)}
    return {}


def programs(ifindex: int, kind: int) -> list[int]:
    """Ids of all programs, ours and others', in the order they run."""
    with _gone_is_empty():
        return libbpf.query(ifindex, kind)
    return []


def _ours(ifindex: int, kind: int, direction: int) -> Iterator[tuple[Program, str]]:
    """Our programs that belong there, open, with their fingerprints."""
    for number in libbpf.query(ifindex, kind):
        with suppress(FileNotFoundError), Program.open_id(number) as program:
            known = DIRECTION.get(program.name) == direction
            mark = IDENTITY.search(program.constants()) if known else None
            if mark is not None:
                yield program, mark[1].decode()


@contextmanager
def _gone_is_empty() -> Iterator[None]:
    """For what finds nothing on an interface that is gone, or on a kernel without such points."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOTHING_THERE:
            raise
