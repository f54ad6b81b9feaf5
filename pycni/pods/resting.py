# SPDX-License-Identifier: Apache-2.0
"""Which addresses rest: they were given back a short time ago.

Others may still send to the pod that had such an address: clients with an old name lookup, nodes
with an old route, connections in flight. So the next pod gets another one, if there is any.

A log in the run directory, which ends with the boot as the addresses' links do: one line for each
address that is given back. Lines are appended, so nobody waits; when they are old, the file takes
the place of the one before it. It is no lease: if it cannot be written or read, no address rests.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from pycni.cluster import IPAddress
from pycni.errors import FileError
from pycni.files import FILE_MODE, alone_in
from pycni.logfmt import quoted

REST = 120.0
"""Seconds."""
LOG, FORMER_LOG = "resting", "resting.old"
LOG_SIZE = 32 << 10
"""Bytes: of a longer log, the time of its first line is looked at."""

log = logging.getLogger(__name__)


def rest(run_dir: Path, addresses: Iterable[IPAddress]) -> None:
    """Note that the addresses are given back now."""
    now = _now()
    lines = "".join(f"{now} {address}\n" for address in addresses)
    try:
        descriptor = _open(run_dir / LOG)
        try:
            os.write(descriptor, lines.encode())
            if os.fstat(descriptor).st_size > LOG_SIZE:
                _turn_over(run_dir)
        finally:
            os.close(descriptor)
    except (OSError, FileError) as error:
        log.warning("addresses do not rest file=%s error=%s",
                    quoted(run_dir / LOG), quoted(error))  # fmt: skip


def teardown(run_dir: Path) -> None:
    """Remove both logs."""
    for name in (LOG, FORMER_LOG):
        (run_dir / name).unlink(missing_ok=True)


class Resting:
    """The addresses that rest at the time when this is made."""

    def __init__(self, run_dir: Path) -> None:
        self._now = _now()
        self._lines = _read(run_dir / FORMER_LOG) + _read(run_dir / LOG)
        self._words = frozenset(self._lines.split())

    def __iter__(self) -> Iterator[IPAddress]:
        """Each address that rests."""
        for word in self._words:
            with suppress(ValueError):
                address = ip_address(word.decode(errors="replace"))
                if self.since(address) is not None:
                    yield address

    def since(self, address: IPAddress) -> int | None:
        """When the address was given back last, in milliseconds of the boot's clock; None if it
        does not rest."""
        word = str(address).encode()
        if word not in self._words:
            return None
        end = self._lines.rfind(b" " + word + b"\n")
        try:
            since = int(self._lines[self._lines.rfind(b"\n", 0, max(end, 0)) + 1 : end])
        except ValueError:  # a line of a full disk
            return None
        return since if 0 <= self._now - since < REST * 1000 else None


def _turn_over(run_dir: Path) -> None:
    """Make the log the former one, if the lines of the former one are old."""
    with alone_in(run_dir) as alone:
        if alone:
            first = _read(run_dir / LOG).partition(b" ")[0]
            if not first.isdigit() or _now() - int(first) >= REST * 1000:
                (run_dir / LOG).replace(run_dir / FORMER_LOG)


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, FILE_MODE)


def _read(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""


def _now() -> int:
    """Milliseconds since the boot: nobody sets this clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
