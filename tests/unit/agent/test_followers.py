# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/followers.py: each follower gets what happens from now on, and delays no other."""

from __future__ import annotations

import logging
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pycni.agent import followers
from pycni.dataplane import event_stream
from pycni.dataplane.ring import EventRing
from pycni.errors import NotAvailable
from unit.agent.runs import OneRun

OLD, ONE, TWO = b"old", b"one", b"two"
TIMEOUT = 10.0


class Ring:
    """A ring buffer in a socket pair, so that it can be waited for."""

    def __init__(self) -> None:
        self._reader, self.writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reader.setblocking(False)
        self.replaced = threading.Event()
        self.reads = 0

    def put(self, *records: bytes) -> None:
        for record in records:
            self.writer.send(record)

    def fileno(self) -> int:
        return self._reader.fileno()

    def read(self, _seconds: float) -> list[bytes]:
        self.reads += 1
        found = []
        while True:
            try:
                found.append(self._reader.recv(1 << 16))
            except BlockingIOError:
                return found

    def discard(self) -> None:
        self.read(0)

    def is_replaced(self) -> bool:
        return self.replaced.is_set()

    def close(self) -> None:
        self._reader.close()
        self.writer.close()


class Agent:
    """`follow` in a thread, and the rings that it opened."""

    def __init__(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
    ) -> None:
        self.log = log
        self.clients: list[socket.socket] = []
        self.path = directory / "event.sock"
        self.run = OneRun()
        self.rings: list[Ring] = []
        self.opened = threading.Semaphore(0)
        monkeypatch.setattr(followers, "LOOK", 0.05)
        monkeypatch.setattr(followers, "IDLE_LOOK", 0.05)
        monkeypatch.setattr(followers.ring, "opening", self._opening)
        settings = SimpleNamespace(event_socket_path=self.path)
        self._thread = threading.Thread(target=followers.follow, args=(settings, self.run))
        self._thread.start()
        assert self.opened.acquire(timeout=TIMEOUT)

    @contextmanager
    def _opening(self, _settings: object, *, timeout: float) -> Iterator[Ring]:
        assert timeout == followers.HANDOVER
        ring = Ring()
        self.rings.append(ring)
        self.opened.release()
        yield ring
        ring.close()

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.run.end()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        assert not self.path.exists()


@pytest.fixture
def agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Agent]:
    tmp_path.chmod(0o700)
    caplog.set_level(logging.INFO)
    agent = Agent(tmp_path, monkeypatch, caplog)
    yield agent
    agent.end()


def connect(agent: Agent) -> socket.socket:
    connection = event_stream.connect(agent.path)
    assert connection is not None
    agent.clients.append(connection)
    event_stream.begin(connection, TIMEOUT)
    connection.settimeout(TIMEOUT)
    return connection


def heard(connection: socket.socket, count: int) -> list[tuple[int, bytes]]:
    return list(islice(event_stream.records(connection), count))


def test_all_followers_get_the_same_records(agent: Agent) -> None:
    first, second = connect(agent), connect(agent)

    agent.rings[0].put(ONE, TWO)

    assert heard(first, 2) == heard(second, 2) == [(0, ONE), (0, TWO)]


def test_a_follower_gets_nothing_from_before_it_came(agent: Agent) -> None:
    agent.rings[0].put(OLD)
    first = connect(agent)
    agent.rings[0].put(ONE)
    assert heard(first, 1) == [(0, ONE)]


def test_nor_does_one_that_comes_later(agent: Agent) -> None:
    first = connect(agent)
    agent.rings[0].put(OLD)
    second = connect(agent)
    agent.rings[0].put(ONE)

    assert heard(second, 1) == [(0, ONE)]
    assert heard(first, 2) == [(0, OLD), (0, ONE)]


def test_with_no_follower_the_ring_is_left_alone(agent: Agent) -> None:
    agent.rings[0].put(OLD)
    connect(agent).close()
    wait_for_silence(agent)
    before = agent.rings[0].reads

    agent.rings[0].put(ONE)
    time.sleep(4 * followers.LOOK)  # nothing is to happen: there is nothing to wait for

    assert agent.rings[0].reads == before


def wait_for_silence(agent: Agent) -> None:
    """Until the agent has seen that the last follower is gone."""
    deadline = time.monotonic() + TIMEOUT
    while "follower went followers=0" not in agent.log.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_follower_that_stops_reading_delays_nobody(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "QUEUE", 8)
    slow, quick = connect(agent), connect(agent)
    record = bytes(1000)

    stream = event_stream.records(quick)
    for _ in range(2000):  # more than the queue and the socket of the slow one take
        agent.rings[0].put(record)
        assert next(stream) == (0, record)

    assert heard(slow, 1) == [(0, record)]


def test_one_that_comes_as_the_last_one_is_found_to_be_gone_hears_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    ring = Ring()
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
        followers.Followers(listener, cast("EventRing", ring)) as made,
    ):
        listener.bind(str(tmp_path / "event.sock"))
        listener.listen()
        first.connect(listener.getsockname())
        made._accept()
        ring.put(OLD)
        first.close()
        second.connect(listener.getsockname())
        made._accept()

        ring.put(ONE)
        made.serve(TIMEOUT)

        second.settimeout(TIMEOUT)
        assert second.recv(len(event_stream.BEGIN), socket.MSG_WAITALL) == event_stream.BEGIN
        assert heard(second, 1) == [(0, ONE)]
    ring.close()


def test_the_lost_and_the_seen_are_all() -> None:
    ours, theirs = socket.socketpair()
    follower = followers.Follower(theirs)
    total = 3 * followers.QUEUE
    record = bytes(1000)
    with ours:
        for _ in range(total):
            follower.add(record)
            follower.send()
        got: list[tuple[int, bytes]] = []
        assert ours.recv(len(event_stream.BEGIN), socket.MSG_WAITALL) == event_stream.BEGIN
        stream = event_stream.records(ours)
        reader = threading.Thread(target=lambda: got.extend(stream))
        reader.start()
        while follower.waits:
            follower.send()
        follower.add(b"last")
        follower.send()
        theirs.close()
        reader.join(TIMEOUT)

    assert got[-1][1] == b"last"
    lost = sum(skipped for skipped, _ in got)
    assert lost > 0
    assert len(got) - 1 + lost == total


def test_a_follower_that_goes_away_is_forgotten(agent: Agent) -> None:
    first, second = connect(agent), connect(agent)
    second.close()

    agent.rings[0].put(ONE, TWO)

    assert heard(first, 2) == [(0, ONE), (0, TWO)]


def test_a_follower_that_sends_something_is_let_go(agent: Agent) -> None:
    connection = connect(agent)
    connection.sendall(b"?")

    assert list(event_stream.records(connection)) == []


def test_a_stranger_is_not_served(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers.rpc, "peer_is_trusted", lambda _: False)

    with pytest.raises(NotAvailable, match="neither as root nor as user"):
        connect(agent)


def test_there_are_not_more_than_so_many(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "FOLLOWERS_AT_ONCE", 1)
    first = connect(agent)

    with pytest.raises(NotAvailable, match="there are 1 followers, which is the limit"):
        connect(agent)
    agent.rings[0].put(ONE)
    assert heard(first, 1) == [(0, ONE)]


def test_the_socket_is_private(agent: Agent) -> None:
    assert stat.S_IMODE(agent.path.stat().st_mode) == 0o600


def test_a_ring_that_a_setup_replaced_is_opened_anew(agent: Agent) -> None:
    before = connect(agent)
    agent.rings[0].replaced.set()
    assert agent.opened.acquire(timeout=TIMEOUT)

    assert list(event_stream.records(before)) == []
    after = connect(agent)
    agent.rings[1].put(ONE)
    assert heard(after, 1) == [(0, ONE)]
