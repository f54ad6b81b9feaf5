# SPDX-License-Identifier: Apache-2.0
"""Whether what this process mounts is seen by others: mount_namespaces(7), proc(5) "mountinfo"."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

OWN_NAMESPACE = Path("/proc/self/ns/mnt")
MOUNTINFO = Path("/proc/self/mountinfo")
NETNS_DIRS = (Path("/run/netns"), Path("/var/run/netns"))
"""ip-netns(8) keeps named network namespaces here."""


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo."""

    point: Path
    shared: bool
    """Whether a mount below it appears in other mount namespaces, too."""
    follows: bool
    """Whether it is a copy that gets what is mounted at its original ("master:")."""
    kind: str
    source: str
    root: str = "/"
    """Which directory of its file system is mounted; the kernel adds "//deleted" to one that is
    gone, and another name to one that was renamed."""


def read() -> list[Mount]:
    """The mounts that this process sees, in the order in which they were made."""
    return [parse(line) for line in MOUNTINFO.read_text(errors="replace").splitlines()]


def parse(line: str) -> Mount:
    """A line of mountinfo; blanks in paths are octal escapes, which stay."""
    head, _, tail = line.partition(" - ")
    fields, (kind, source, *_) = head.split(" "), tail.split(" ")
    shared = any(field.startswith("shared:") for field in fields[6:])
    follows = any(field.startswith("master:") for field in fields[6:])
    return Mount(Path(fields[4]), shared, follows, kind, source, root=fields[3])


def covering(path: Path) -> Mount | None:
    """The mount that `path` is on; None if this process sees none."""
    # of several at one point, the last one covers the others
    around = sorted(
        (mount for mount in read() if path.is_relative_to(mount.point)),
        key=lambda mount: len(mount.point.parts),
    )
    return around[-1] if around else None


def why_hidden(path: Path) -> str:
    """Why a file system that this process mounts at `path` would be seen by nobody else, and end
    with the command; empty if others see it.

    `ip netns exec` gives each command a mount namespace of its own, with a sysfs that has the name
    of the network namespace as its source (iproute2, lib/namespace.c).
    """
    around = covering(path)
    if around is not None and around.shared:
        return ""
    for mount in reversed(read()):
        if mount.kind == "sysfs" and mount.point == Path("/sys"):
            if any((directory / mount.source).exists() for directory in NETNS_DIRS):
                return (
                    f"it runs in `ip netns exec {mount.source}`, whose mounts end with the command"
                )
            break
    parent = _namespace(Path(f"/proc/{os.getppid()}/ns/mnt"))
    if parent not in (None, _namespace(OWN_NAMESPACE)):
        return "its mount namespace is not that of the process that started it"
    return ""


def _namespace(path: Path) -> int | None:
    """What tells a namespace from others; None if one may not know it."""
    try:
        return path.stat().st_ino
    except OSError:
        return None
