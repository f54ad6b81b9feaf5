# SPDX-License-Identifier: Apache-2.0
"""What the agent found out about the cluster, for other processes: a file in the run directory.

It is as old as the agent says, and goes with a reboot. Nothing that forwards reads it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pycni.errors import FileError
from pycni.files import replace_file
from pycni.line_limit import LineLimit
from pycni.logfmt import quoted
from pycni.settings import Settings

FILE = "report.json"
WRITTEN = "written"
RIVAL, SET_ASIDE, LEFT_OUT, PEERS = "rival", "set_aside", "left_out", "peers"
BLOCKS, PLACE, SERVICES = "blocks", "place", "services"
"""Sections. Each is written by one loop of the agent, and read by one function."""

AGE_MAX = 90.0
"""Seconds after which a report says nothing about now: its agent writes more often."""
RENEWAL = 20.0
"""Seconds after which it is written again though it says the same."""
WINDOW, MEMORY = 12, 5
"""Of zlib: 32 KB while it packs, an eighth of its defaults."""
PIECE = 64 << 10
"""Bytes that are unpacked at a time."""
SIZE_MAX = 4 << 20
"""Bytes that a reader takes."""

log = logging.getLogger(__name__)


class Report:
    """The report as an agent writes it; safe to use from several threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = report_path(settings)
        self._clock = clock
        self._sections: dict[str, bytes] = {}
        """As JSON, compressed: that takes a tenth, for thousands of nodes."""
        self._written = -RENEWAL
        self._limit = LineLimit(clock=clock)
        self._lock = threading.Lock()

    def put_table(self, section: str, rows: Iterable[tuple[str, Any]]) -> None:
        """As `put`, for a table of many rows: only one is there at a time."""
        self._put(section, _table(rows))

    def put(self, section: str, value: Any) -> None:
        """Say something, as JSON types. A file that cannot be written is logged: nobody's packets
        depend on it."""
        self._put(section, [json.dumps(value).encode()])

    def _put(self, section: str, text: Iterable[bytes]) -> None:
        with self._lock:
            packer = zlib.compressobj(zlib.Z_BEST_SPEED, wbits=WINDOW, memLevel=MEMORY)
            packed = b"".join([*filter(None, map(packer.compress, text)), packer.flush()])
            now = self._clock()
            if self._sections.get(section) == packed and now - self._written < RENEWAL:
                return
            self._sections[section] = packed
            try:
                replace_file(self._path, _document(now, self._sections), durable=False)
            except FileError as error:
                if self._limit.take("report") is not None:
                    log.warning("report not written error=%s", quoted(error.message))
            else:
                self._written = now


def _document(now: float, sections: Mapping[str, bytes]) -> Iterator[bytes]:
    yield f'{{"{WRITTEN}": {json.dumps(now)}'.encode()
    for name, said in sections.items():
        yield f', "{name}": '.encode()
        yield from _unpacked(said)
    yield b"}"


def _unpacked(packed: bytes) -> Iterator[bytes]:
    unpacker = zlib.decompressobj()
    while packed:
        yield unpacker.decompress(packed, PIECE)
        packed = unpacker.unconsumed_tail


def _table(rows: Iterable[tuple[str, Any]]) -> Iterator[bytes]:
    comma = "{"
    for key, value in rows:
        yield f"{comma}{json.dumps(key)}: {json.dumps(value)}".encode()
        comma = ", "
    yield b"{}" if comma == "{" else b"}"


def read(settings: Settings, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """The sections of the last report; empty if there is none, or none of now. Raises nothing."""
    try:
        with report_path(settings).open("rb") as file:
            document = json.loads(file.read(SIZE_MAX))
        age = clock() - float(document.pop(WRITTEN))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return document if 0 <= age < AGE_MAX else {}


def read_table(settings: Settings, section: str) -> dict[str, Any]:
    """One section of `read` that is a table; empty if it is not there. Where it is not, this is
    cheaper: the report about thousands of nodes takes time to decode."""
    try:
        with report_path(settings).open("rb") as file:
            if f'"{section}": {{'.encode() not in file.read(SIZE_MAX):
                return {}
    except OSError:
        return {}
    return table(read(settings), section)


def table(told: dict[str, Any], section: str) -> dict[str, Any]:
    """A section of `read` that is a table; empty if it is not there."""
    found = told.get(section)
    return found if isinstance(found, dict) else {}


def report_path(settings: Settings) -> Path:
    """Where the report is; there may be none."""
    return settings.run_dir / FILE
