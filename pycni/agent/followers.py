# SPDX-License-Identifier: Apache-2.0
"""Serves the records of the ring buffer `events` to any number of followers (event_stream.py).

The agent is the ring's one reader. Each follower has a queue of its own: one that stops reading
loses records, is told how many, and delays nobody. With no follower the ring is left alone, so it
fills, and the programs' drops cost what they cost with an empty ring. A follower gets what happens
after it came: the records before that are discarded.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE

from pycni.agent import server
from pycni.agent.loops import Run
from pycni.cni import rpc
from pycni.dataplane import event_stream, ring
from pycni.dataplane.ring import EventRing
from pycni.logfmt import quoted
from pycni.settings import Settings

QUEUE = 4096
"""Records that wait for one follower."""
FOLLOWERS_AT_ONCE = 64
LOOK, IDLE_LOOK = 1.0, 5.0
"""Seconds between two looks at whether to stop, and whether the ring was replaced: with followers,
and without."""
HANDOVER = 5.0
"""Seconds for which a reader that began without an agent may need to hand the ring over."""

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run) -> None:
    """Until the agent stops. Raises TryAgain if another process reads the ring and keeps it, else
    PycniError or OSError."""
    with server.listening(settings.event_socket_path) as listener:
        listener.settimeout(0)
        while not run.stopping:
            with (
                ring.opening(settings, timeout=HANDOVER) as events,
                Followers(listener, events) as followers,
            ):
                run.well()
                _serve(followers, events, run)


def _serve(followers: Followers, events: EventRing, run: Run) -> None:
    """Until the agent stops or the ring is another."""
    looked = time.monotonic()
    while not run.stopping:
        pause = LOOK if followers else IDLE_LOOK
        followers.serve(pause)
        now = time.monotonic()
        if now >= looked + (LOOK if followers else IDLE_LOOK):
            if events.is_replaced():
                return
            looked = now


class Follower:
    """One connection and what waits to be sent to it. Never blocks."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self.connection = connection
        self._queue: deque[bytes] = deque([event_stream.BEGIN])
        self._unsent = b""
        self._lost = 0

    @property
    def waits(self) -> bool:
        """Whether something is left to be sent."""
        return bool(self._unsent or self._queue)

    def add(self, record: bytes) -> None:
        """Queue a record, or count it as lost if the queue is full."""
        if len(self._queue) >= QUEUE:
            self._lost += 1
            return
        self._queue.append(event_stream.pack(record, self._lost))
        self._lost = 0

    def send(self) -> None:
        """Send what the socket takes now. Raises OSError if the follower is gone."""
        while self.waits:
            if not self._unsent:
                self._unsent = b"".join(self._queue)
                self._queue.clear()
            try:
                sent = self.connection.send(self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[sent:]


class Followers:
    """All followers of one ring; closes their connections at the end."""

    def __init__(self, listener: socket.socket, events: EventRing) -> None:
        self._listener = listener
        self._events = events
        self._followers: dict[int, Follower] = {}
        """By descriptor."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, EVENT_READ)

    def __enter__(self) -> Followers:
        return self

    def __exit__(self, *exc: object) -> None:
        for follower in self._followers.values():
            follower.connection.close()
        self._selector.close()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._followers)

    def serve(self, seconds: float) -> None:
        """Do what there is to do; wait up to `seconds` if that is nothing."""
        for key, ready in self._selector.select(seconds):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._events:
                self._pass_on()
            elif follower := self._followers.get(key.fd):
                if ready & EVENT_READ:  # it sends nothing, so it is gone
                    self._drop(follower)
                else:
                    self._send(follower)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:  # it went away again
            return
        if reason := self._why_not(connection):
            log.warning("follower refused reason=%s", quoted(reason))
            with connection, suppress(OSError):
                connection.send(event_stream.refusal(reason))
            return
        if self._followers:
            self._pass_on()  # records until now are for earlier followers
        if not self._followers:  # also if the last of them is found to be gone
            self._events.discard()
            self._selector.register(self._events, EVENT_READ)
        follower = self._followers[connection.fileno()] = Follower(connection)
        self._selector.register(connection, EVENT_READ)
        log.info("follower came followers=%d", len(self._followers))
        self._send(follower)

    def _why_not(self, connection: socket.socket) -> str:
        """Why a follower is refused; empty if it is not."""
        if not rpc.peer_is_trusted(connection):
            return f"it runs neither as root nor as user {os.geteuid()}"
        if len(self._followers) >= FOLLOWERS_AT_ONCE:
            return f"there are {len(self._followers)} followers, which is the limit: end another"
        return ""

    def _pass_on(self) -> None:
        found = self._events.read(0)
        for follower in list(self._followers.values()):
            for record in found:
                follower.add(record)
            self._send(follower)

    def _send(self, follower: Follower) -> None:
        try:
            follower.send()
        except OSError:
            self._drop(follower)
            return
        wanted = EVENT_READ | EVENT_WRITE if follower.waits else EVENT_READ
        if self._selector.get_key(follower.connection).events != wanted:
            self._selector.modify(follower.connection, wanted)

    def _drop(self, follower: Follower) -> None:
        del self._followers[follower.connection.fileno()]
        self._selector.unregister(follower.connection)
        follower.connection.close()
        if not self._followers:
            self._selector.unregister(self._events)
        log.info("follower went followers=%d", len(self._followers))
