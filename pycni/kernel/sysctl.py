"""Kernel parameters under /proc/sys/net, of the calling process's network namespace.

Every change is returned with the value it replaced, so that teardown restores exactly.
"""

from __future__ import annotations

from pathlib import Path

PROC_SYS = Path("/proc/sys")


def read(name: str) -> str | None:
    """Value of e.g. "net/ipv4/conf/eth0.100/forwarding" (slashes: names may hold dots)."""
    try:
        return (PROC_SYS / name).read_text().strip()
    except FileNotFoundError:
        return None


def names(pattern: str) -> list[str]:
    """Existing parameters that match, e.g. "net/ipv6/conf/*/forwarding"."""
    return sorted(str(path.relative_to(PROC_SYS)) for path in PROC_SYS.glob(pattern))


def write(name: str, value: str) -> str | None:
    """Set a parameter; returns the value it had if that differs, else None.

    A parameter that does not exist (IPv6 off) is left alone. Raises OSError if it cannot be
    written.
    """
    before = read(name)
    if before is None or before == value:
        return None
    (PROC_SYS / name).write_text(value)
    return before
