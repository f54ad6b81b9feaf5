# SPDX-License-Identifier: Apache-2.0
"""What a run could leave on the machine: mounts, interfaces, processes, sockets of libvirt."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

Traces = frozenset[tuple[str, str]]

PLACES = ("/run/libvirt", "/etc/libvirt", "/var/lib/libvirt", "/run/netns")


def take() -> Traces:
    """What there is now."""
    return frozenset([*_mounts(), *_interfaces(), *_places()])


def new_since(before: Traces, work: Path) -> list[str]:
    """What there is more now, and every process that runs in or from its directory."""
    found = [f"{kind} {name}" for kind, name in sorted(take() - before)]
    return found + [f"process {pid}" for pid in _processes(work)]


def _mounts() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield "mount", line.split()[4]


def _interfaces() -> Iterator[tuple[str, str]]:
    for _, name in socket.if_nameindex():
        yield "interface", name


def _places() -> Iterator[tuple[str, str]]:
    for place in PLACES:
        with suppress(FileNotFoundError):
            for name in os.listdir(place):
                yield "file", f"{place}/{name}"


def _processes(work: Path) -> Iterator[int]:
    for directory in Path("/proc").glob("[0-9]*"):
        for link in (directory / "root", directory / "cwd", directory / "exe"):
            with suppress(OSError):
                # in other mounts than ours it is a path of theirs, which may begin above our root
                if f"{work}/" in f"{link.readlink()}/":
                    yield int(directory.name)
                    break
