# SPDX-License-Identifier: Apache-2.0
"""What the programs tell of single packets, typed: the one place that reads a record.

Every record begins with an envelope (`struct event`: kind, version, length). A kind or a version
that is not known here is skipped. Within a version fields may be added at the end; they are
ignored. Programs and reasons have the names that the BTF of the loaded programs gives them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from struct import Struct

from pycni.dataplane import abi, event_stream, ring
from pycni.dataplane.dumps import Names
from pycni.errors import NotAvailable
from pycni.settings import Settings

EVENT = Struct(abi.EVENT.format)
DROP_EVENT = Struct(abi.DROP_EVENT.format)

ANSWER = 10.0
"""Seconds that an agent may take to begin; longer than another reader may keep the ring."""
TRIES, RETRY = 5, 0.2
"""To reach an agent that closes connections; seconds in between."""
LOOK = 1.0
"""Seconds between two looks for an agent, without one."""


@dataclass(frozen=True)
class DropEvent:
    """One packet that was dropped; of 16 drops, one is an event."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    unix_ns: int
    """The same moment, in nanoseconds since 1970-01-01 UTC, by the clock when it was read."""
    ifindex: int
    length: int
    """Bytes of the packet, with the Ethernet header."""
    program: str
    reason: str
    head: bytes
    """The beginning of the packet, from the Ethernet header on."""

    @property
    def utc(self) -> str:
        """ISO 8601, in UTC, with microseconds."""
        when = datetime.fromtimestamp(self.unix_ns // 10**9, UTC)
        return f"{when:%Y-%m-%dT%H:%M:%S}.{self.unix_ns // 1000 % 10**6:06d}Z"


@dataclass(frozen=True)
class Lost:
    """Events that this follower did not get, because it was slow."""

    count: int


def follow(settings: Settings) -> Iterator[DropEvent | Lost]:
    """The events of this node from now on, as they happen, for ever.

    They come from the agent, which serves any number of followers. With no agent this process reads
    the ring buffer itself, until an agent is there.

    Raises NotAvailable if nothing is loaded, or if the agent does not answer; TryAgain if there is
    no agent and another process reads the ring.
    """
    names = Names.of(settings.pin_root, "drops", "drop_reason")
    for lost, record in _records(settings):
        if lost:
            yield Lost(lost)
        event = decode(record, names, offset_ns=time.time_ns() - time.monotonic_ns())
        if event is not None:
            yield event


def decode(record: bytes, names: Names, *, offset_ns: int) -> DropEvent | None:
    """A record of the ring buffer; None if its kind or version is not known here, or it is cut off.

    `offset_ns` is how far the wall clock (Unix time) is ahead of CLOCK_MONOTONIC.
    """
    if len(record) < EVENT.size:
        return None
    kind, version, length = EVENT.unpack_from(record)
    if (kind, version) != (abi.EventKind.DROP, abi.DROP_EVENT_VERSION):
        return None
    if not DROP_EVENT.size <= length <= len(record):
        return None
    _, time_ns, ifindex, size, point, reason, head_length, head = DROP_EVENT.unpack_from(record)
    return DropEvent(
        time_ns,
        time_ns + offset_ns,
        ifindex,
        size,
        names.points.get(point, f"program {point}"),
        names.columns.get(reason, f"reason {reason}"),
        head[:head_length],
    )


def _records(settings: Settings) -> Iterator[tuple[int, bytes]]:
    """Records, each with the number of those lost before it."""
    agent = _agent(settings)
    while True:
        if agent is not None:
            yield from event_stream.records(agent)
            agent = _agent(settings)
        else:
            agent = yield from _from_ring(settings)


def _agent(settings: Settings) -> socket.socket | None:
    """A connection to the agent, which tells from now on; None if there is no agent.

    An agent that is ending may still take a connection, and close it: then this looks again.
    """
    tries = 0
    while (connection := event_stream.connect(settings.event_socket_path)) is not None:
        try:
            event_stream.begin(connection, ANSWER)
            return connection
        except (TimeoutError, EOFError, ConnectionError) as error:
            tries += 1
            if tries == TRIES or isinstance(error, TimeoutError):
                raise NotAvailable(
                    f"the agent tells of no events: {error}",
                    hint="its log says why; when no agent runs, events are read without one",
                ) from error
        time.sleep(RETRY)
    return None


def _from_ring(
    settings: Settings,
) -> Generator[tuple[int, bytes], None, socket.socket | None]:
    """Read the ring until an agent is there, then return a connection to it; or until a setup has
    replaced the ring."""
    with ring.opening(settings, timeout=LOOK) as events:
        events.discard()
        look = time.monotonic() + LOOK
        while True:
            yield from ((0, record) for record in events.read(LOOK))
            if time.monotonic() >= look:
                waiting = event_stream.connect(settings.event_socket_path)
                if waiting is not None:
                    break
                if events.is_replaced():
                    return None
                look = time.monotonic() + LOOK
    waiting.close()  # it begins when it has the ring
    return _agent(settings)
