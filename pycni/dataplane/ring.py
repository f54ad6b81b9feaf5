"""The ring buffer `events`, into which the programs write records: one process reads it at a time.

Reading takes the records away, so of two readers each would miss what the other got. A lock keeps
the second reader out and names the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loader import bpf
from loader.maps import RING_BATCH
from pycni import locks
from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.settings import Settings

RING = "events"
SMALLEST_RECORD = 16
"""Bytes that a record takes at least: its header, and one word (kernel/bpf/ringbuf.c)."""


class EventRing:
    """The reader. `opening` makes it."""

    def __init__(self, root: Path, ring: bpf.Map, reader: bpf.RingBuffer) -> None:
        self._root = root
        self._info = ring.info
        self._reader = reader

    def fileno(self) -> int:
        """A descriptor that is readable when there are records (for selectors)."""
        return self._reader.fileno()

    def read(self, seconds: float) -> list[bytes]:
        """Wait for records up to `seconds`, and take them: at most loader.maps.RING_BATCH."""
        return self._reader.poll(round(1000 * seconds))

    def discard(self) -> None:
        """Take what is there now. Ends also if the programs go on to write faster than this."""
        for _ in range(self._info.max_entries // SMALLEST_RECORD // RING_BATCH + 1):
            if not self.read(0):
                return

    def is_replaced(self) -> bool:
        """Whether a setup has put another ring buffer in its place. After a teardown there is none,
        and nothing to read, until the next setup."""
        try:
            with maps.open_map(self._root, RING) as pinned:
                return pinned.info.id != self._info.id
        except NotAvailable:
            return False


@contextmanager
def opening(settings: Settings, *, timeout: float = 0) -> Iterator[EventRing]:
    """Be the one reader. Raises TryAgain, which names the other, if there is one for `timeout`
    seconds; NotAvailable if nothing is loaded."""
    with (
        locks.events_lock(settings.run_dir, timeout=timeout),
        maps.open_map(settings.pin_root, RING) as ring,
        bpf.RingBuffer(ring) as reader,
    ):
        yield EventRing(settings.pin_root, ring, reader)
