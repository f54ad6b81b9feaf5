# SPDX-License-Identifier: Apache-2.0
"""The connections through Services in the map `flows`, as the programs wrote them. Reads only.

The map has room for half a million entries, so nothing here holds more than a batch of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from loader.closing import Closing
from pycni.dataplane import abi, maps
from pycni.dataplane.maps import Table
from pycni.dataplane.service_maps import FLOWS, PROTOCOLS, Backend, Flow, FlowKey

SECOND = 1_000_000_000
FLAGS = FLOWS.value.layout.place("flags")
EXPIRES = FLOWS.value.layout.place("expires")
MARKS = [FLAGS, *map(FLOWS.value.layout.place, ("backend", "generation"))]
"""Of the members by which a change is known: an entry may go on with another endpoint."""

OPENING, OPEN, CLOSING, CLOSED, RESET = "opening", "open", "closing", "closed", "reset"
UNANSWERED, ANSWERED, STALE = "unanswered", "answered", "stale"
STATES = (OPENING, OPEN, CLOSING, CLOSED, RESET, UNANSWERED, ANSWERED, STALE)


@dataclass(frozen=True, slots=True)
class Connection:
    """What one client has with one endpoint."""

    packet: FlowKey
    """As the client sends."""
    flow: Flow
    """Its `to` is as the endpoint gets it."""
    state: str
    """One of STATES. "closing": one end has sent its last byte; "closed": both. "stale": the
    endpoint is gone: what the client sends next goes to another, or is rejected."""

    def idle(self, now: int) -> int:
        """Seconds since its last packet, one more at most. `now` is ns of CLOCK_MONOTONIC."""
        return max(0, lifetime(self.packet.protocol, self.flow) - self.remaining(now))

    def remaining(self, now: int) -> int:
        """Seconds until it is forgotten, if nobody sends."""
        return -(-max(0, self.flow.expires - now) // SECOND)


class Flows(Closing):
    """Owns the maps' descriptors. Methods raise OSError."""

    def __init__(self, root: Path) -> None:
        """Those pinned at `root`. Raises NotAvailable."""
        with ExitStack() as undo:
            self._flows: Table[FlowKey, Flow] = undo.enter_context(maps.open_table(root, "flows"))
            self._backends: Table[int, Backend] = undo.enter_context(
                maps.open_table(root, "backends")
            )
            self._close = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def connections(self, now: int) -> Iterator[Connection]:
        """Those that have not expired, in the kernel's order. `now` is ns of CLOCK_MONOTONIC."""
        for raw_key, raw in self._flows.raw():
            if is_alive_request(raw, now):
                yield self._read(raw_key, raw)

    def changes(self, seen: dict[bytes, bytes], now: int) -> Iterator[Connection]:
        """Those that began, or whose state or endpoint is another than in `seen`, which then knows
        them; it forgets those that are over."""
        alive, states = set(), dict[bytes, bytes]()
        for raw_key, raw in self._flows.raw():
            if not is_alive_request(raw, now):
                continue
            alive.add(raw_key)
            mark = b"".join(raw[one.start : one.stop] for one in MARKS)
            if mark not in states:
                states[mark] = mark + bytes([self._is_stale(FLOWS.value.unpack(raw))])
            if seen.get(raw_key) != states[mark]:
                seen[raw_key] = states[mark]
                yield self._read(raw_key, raw)
        for raw_key in seen.keys() - alive:
            del seen[raw_key]

    def close(self) -> None:
        self._close.close()

    def _read(self, raw_key: bytes, raw: bytes) -> Connection:
        packet, flow = FLOWS.key.unpack(raw_key), FLOWS.value.unpack(raw)
        return Connection(packet, flow, STALE if self._is_stale(flow) else state(packet, flow))

    def _is_stale(self, flow: Flow) -> bool:
        """As `is_backend_there` in bpf/lib/services.h."""
        if not flow.backend:
            return False
        backend = self._backends.get(flow.backend)
        return backend is None or backend.generation != flow.generation


def is_alive_request(raw: bytes, now: int) -> bool:
    """Of an entry's bytes: whether it is the client's half, and has not expired."""
    flags = int.from_bytes(raw[FLAGS.start : FLAGS.stop], sys.byteorder)
    expires = int.from_bytes(raw[EXPIRES.start : EXPIRES.stop], sys.byteorder)
    return bool(flags & abi.FlowFlag.REQUEST) and expires > now


def state(packet: FlowKey, flow: Flow) -> str:
    """How far it is, by what was seen of it."""
    if packet.protocol != PROTOCOLS["TCP"]:
        return ANSWERED if flow.answered else UNANSWERED
    if flow.reset:
        return RESET
    if flow.request_fin and flow.answer_fin:
        return CLOSED
    if flow.request_fin or flow.answer_fin:
        return CLOSING
    return OPEN if flow.answered else OPENING


def lifetime(protocol: int, flow: Flow) -> int:
    """Seconds from a packet until the entry expires, as `get_timeout` in bpf/lib/flows.h has it."""
    if protocol == PROTOCOLS["UDP"]:
        return 180 if flow.answered else 30
    if protocol != PROTOCOLS["TCP"]:
        return 3600 if flow.answered else 60
    if flow.reset:
        return 10
    if flow.request_fin and flow.answer_fin:
        return 30
    return 8000 if flow.answered else 60
