# SPDX-License-Identifier: Apache-2.0
"""Kernel parameters under /proc/sys, those of /proc/sys/net in the calling thread's namespace."""

from __future__ import annotations

import os
from pathlib import Path

PLACE = "PYCNI_PROC_SYS"
"""An environment variable: where the host's /proc/sys is. Containers have it read-only at its usual
place, and a mount of the host's elsewhere; what is below net is of the thread's namespace there,
too."""
PROC_SYS = Path(os.environ.get(PLACE) or "/proc/sys")
LONGEST = 4096
"""Bytes of a value."""


def read(name: str) -> str | None:
    """Value of e.g. "net/ipv4/conf/eth0.100/forwarding"; None if there is no such parameter.

    Names have slashes because those of interfaces may have dots.
    """
    try:
        descriptor = os.open(f"{PROC_SYS}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, LONGEST).decode().strip()
        finally:
            os.close(descriptor)
    except FileNotFoundError:  # or its interface went away after the open
        return None


def names(pattern: str) -> list[str]:
    """The names of existing parameters that match, e.g. "net/ipv6/conf/*/forwarding"."""
    return sorted(str(path.relative_to(PROC_SYS)) for path in PROC_SYS.glob(pattern))


def write(name: str, value: str) -> str | None:
    """Set a parameter; returns the value it had before if that is another, else None.

    A parameter that does not exist is left out: IPv6 may be off. Raises OSError if it cannot be
    written.
    """
    before = read(name)
    if before is None or before == value:
        return None
    (PROC_SYS / name).write_text(value)
    return before
