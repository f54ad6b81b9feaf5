# SPDX-License-Identifier: Apache-2.0
"""pycni/dataplane/events.py: records become events, from the agent or out of the ring itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest

from pycni.dataplane import event_stream, events
from pycni.dataplane.dumps import Names
from pycni.dataplane.events import DROP_EVENT, EVENT, DropEvent, Lost, decode
from pycni.errors import NotAvailable

NAMES = Names({1: "to_container"}, {5: "multicast"})
DROP, VERSION, OTHER = 1, 1, 7
SIZE = DROP_EVENT.size
PACKET = bytes(range(20))
BOOT_NS = 1_700_000_000 * 10**9
TIMEOUT = 10.0


def record(
    *,
    kind: int = DROP,
    version: int = VERSION,
    size: int = SIZE,
    ifindex: int = 42,
    reason: int = 5,
) -> bytes:
    head = EVENT.pack(kind, version, size)
    return DROP_EVENT.pack(head, 1_234_567, ifindex, 60, 1, reason, len(PACKET), PACKET)


def test_a_drop_is_read_with_its_names_and_both_times() -> None:
    event = decode(record(), NAMES, offset_ns=BOOT_NS)

    assert event == DropEvent(
        time_ns=1_234_567,
        unix_ns=BOOT_NS + 1_234_567,
        ifindex=42,
        length=60,
        program="to_container",
        reason="multicast",
        head=PACKET,
    )
    assert event.utc == "2023-11-14T22:13:20.001234Z"


@pytest.mark.parametrize(
    "unknown",
    [
        record(kind=OTHER),
        record(version=OTHER),
        record(size=SIZE - 8),
        record(size=SIZE + 8),
        record()[:-1],
        EVENT.pack(OTHER, VERSION, EVENT.size),
        bytes(EVENT.size - 1),
        b"",
    ],
    ids=["kind", "version", "short", "cut", "cut body", "no body", "cut head", "empty"],
)
def test_what_is_not_known_is_skipped(unknown: bytes) -> None:
    assert decode(unknown, NAMES, offset_ns=0) is None


def test_fields_that_were_added_at_the_end_are_ignored() -> None:
    longer = record(size=SIZE + 8) + bytes(8)

    assert decode(longer, NAMES, offset_ns=0) == decode(record(), NAMES, offset_ns=0)


def test_a_reason_that_came_with_an_upgrade_is_a_number() -> None:
    event = decode(record(reason=99), NAMES, offset_ns=0)

    assert event is not None
    assert event.reason == "reason 99"


class World:
    """An agent's socket, if `serve` was called, and a ring with these records."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = SimpleNamespace(event_socket_path=directory / "event.sock", pin_root=None)
        self.in_ring: list[bytes] = []
        self.discarded = 0
        self.held = False
        self._listeners: list[socket.socket] = []
        monkeypatch.setattr(events.Names, "of", lambda *_: NAMES)
        monkeypatch.setattr(events.ring, "opening", self._opening)
        monkeypatch.setattr(events, "LOOK", 0.02)
        monkeypatch.setattr(events, "RETRY", 0.02)
        monkeypatch.setattr(events, "ANSWER", TIMEOUT)

    def serve(self, *parts: bytes) -> None:
        """Each is sent to one follower, whose connection is then closed."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.settings.event_socket_path))
        listener.listen()
        self._listeners.append(listener)

        def answer() -> None:
            for part in parts:
                connection, _ = listener.accept()
                with connection, suppress(BrokenPipeError):  # it only looks for an agent
                    connection.sendall(part)
            listener.close()

        threading.Thread(target=answer).start()

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()

    @contextmanager
    def _opening(self, _settings: object, *, timeout: float) -> Iterator[World]:
        assert timeout > 0
        self.held = True
        try:
            yield self
        finally:
            self.held = False

    def discard(self) -> None:
        self.discarded += 1

    def read(self, seconds: float) -> list[bytes]:
        found, self.in_ring = self.in_ring, []
        if not found:
            time.sleep(seconds)
        return found

    def is_replaced(self) -> bool:
        return False


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.close()


def followed(world: World, count: int) -> list[int | Lost]:
    """The first so many events, by their ifindex."""
    stream = events.follow(world.settings)  # type: ignore[arg-type]
    try:
        return [e if isinstance(e, Lost) else e.ifindex for e in islice(stream, count)]
    finally:
        stream.close()  # type: ignore[attr-defined]


def frames(*records: tuple[bytes, int]) -> bytes:
    return event_stream.BEGIN + b"".join(event_stream.pack(*one) for one in records)


def test_events_come_from_the_agent_with_what_was_lost(world: World) -> None:
    world.serve(frames((record(ifindex=1), 0), (record(kind=OTHER), 0), (record(ifindex=2), 3)))

    assert followed(world, 3) == [1, Lost(3), 2]
    assert not world.discarded


def test_with_no_agent_they_are_read_from_the_ring_from_now_on(world: World) -> None:
    world.in_ring = [record(ifindex=1), record(ifindex=2)]

    assert followed(world, 2) == [1, 2]
    assert world.discarded == 1
    assert not world.held


def test_an_agent_that_comes_is_given_the_ring(world: World) -> None:
    world.in_ring = [record(ifindex=1)]
    stream = events.follow(world.settings)  # type: ignore[arg-type]
    assert next(stream).ifindex == 1  # type: ignore[union-attr]

    asked = frames()
    world.serve(asked, frames((record(ifindex=2), 0)))

    assert next(stream).ifindex == 2  # type: ignore[union-attr]
    assert not world.held
    stream.close()  # type: ignore[attr-defined]


def test_after_the_agents_end_the_ring_is_read(world: World) -> None:
    world.serve(frames((record(ifindex=1), 0)))
    world.in_ring = [record(ifindex=2)]

    assert followed(world, 2) == [1, 2]


def test_a_socket_that_a_killed_agent_left_is_no_agent(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(world.settings.event_socket_path))
    world.in_ring = [record(ifindex=1)]

    assert followed(world, 1) == [1]


def test_an_agent_that_is_hung_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "ANSWER", 0.05)
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(world.settings.event_socket_path))
        hung.listen()

        with pytest.raises(NotAvailable, match="tells of no events: timed out"):
            followed(world, 1)


def test_an_agent_that_is_ending_is_looked_for_again(world: World) -> None:
    world.serve(b"")
    world.in_ring = [record(ifindex=1)]

    assert followed(world, 1) == [1]


def test_an_agent_that_refuses_is_an_error(world: World) -> None:
    world.serve(*[b""] * events.TRIES)

    with pytest.raises(NotAvailable, match="closed the connection"):
        followed(world, 1)


def test_a_length_that_cannot_be_is_an_error(world: World) -> None:
    world.serve(event_stream.BEGIN + event_stream.HEADER.pack(event_stream.RECORD_MAX + 1, 0))

    with pytest.raises(NotAvailable, match="an event of 65537 bytes"):
        followed(world, 1)
