# SPDX-License-Identifier: Apache-2.0
"""Questions asked all the time, and which of them had no answer, by the moment they were asked.

A server sends back what it gets. Times are CLOCK_MONOTONIC: the same in all namespaces.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import time
from contextlib import suppress

from support.traffic.sockets import say

INTERVAL = 0.025
"""Seconds between two questions to one target."""
FRESH = 1.0
"""Seconds for which a socket is used: a new one is a new connection for connection tracking."""
KEPT = 3
"""Former sockets of a target that are still listened to, each for FRESH."""
PATIENCE = 3.0
"""Seconds to wait for the last answers."""
NUMBER = struct.Struct("!Q")


def reflect(port: int, addresses: list[str]) -> None:
    """Send each datagram back from the address that it was sent to, until killed. Prints the port
    when all addresses are listened to."""
    with selectors.DefaultSelector() as ready:
        for address in addresses:
            server = socket.socket(_family(address), socket.SOCK_DGRAM)
            server.bind((address, port))
            ready.register(server, selectors.EVENT_READ, server)
        say(port)
        while True:
            for key, _ in ready.select():
                with suppress(OSError):  # no way back at the moment
                    data, client = key.data.recvfrom(1 << 16)
                    key.data.sendto(data, client)


def watch(targets: list[str]) -> None:
    """Ask all targets, `ADDRESS,PORT` each, until standard input has a line or ends; print by
    target how many questions were sent, and when each one was that had no answer."""
    watched = [_Target(target) for target in targets]
    with selectors.DefaultSelector() as ready:
        ready.register(sys.stdin, selectors.EVENT_READ)
        turn = time.monotonic()
        while not _is_over(ready, watched, turn):
            for target in watched:
                target.ask(ready)
            turn = max(turn + INTERVAL, time.monotonic() - FRESH)
        _is_over(ready, watched, time.monotonic() + PATIENCE, to_the_end=True)
    say([target.found() for target in watched])


def _is_over(
    ready: selectors.BaseSelector, watched: list[_Target], deadline: float, *,
    to_the_end: bool = False,
) -> bool:  # fmt: skip
    """Take in answers until the deadline; whether standard input had something before."""
    while True:
        left = deadline - time.monotonic()
        for key, _ in ready.select(max(left, 0)):
            if key.fileobj is not sys.stdin:
                key.data.take(key.fileobj)
            elif not to_the_end:
                return True
            else:
                ready.unregister(sys.stdin)
        if left <= 0 or (to_the_end and not any(target.open for target in watched)):
            return False


class _Target:
    def __init__(self, name: str) -> None:
        address, _, port = name.rpartition(",")
        self._name = name
        self._to = address, int(port)
        self._family = _family(address)
        self._sockets: list[socket.socket] = []
        self._since = 0.0
        self._sent = 0
        self.open: dict[int, float] = {}
        """Questions without an answer yet: their time by number."""

    def ask(self, ready: selectors.BaseSelector) -> None:
        """The next question."""
        now = time.monotonic()
        if now - self._since > FRESH:
            self._renew(ready, now)
        self.open[self._sent] = now
        with suppress(OSError):  # unreachable at the moment
            self._sockets[-1].send(NUMBER.pack(self._sent))
        self._sent += 1

    def take(self, asker: socket.socket) -> None:
        """All answers that are there."""
        while True:
            try:
                data = asker.recv(100)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about an earlier question
                continue
            self.open.pop(NUMBER.unpack(data)[0], None)

    def found(self) -> dict[str, object]:
        """What came of it."""
        lost = [round(when, 3) for when in self.open.values()]
        return {"target": self._name, "sent": self._sent, "lost": lost}

    def _renew(self, ready: selectors.BaseSelector, now: float) -> None:
        asker = socket.socket(self._family, socket.SOCK_DGRAM)
        asker.settimeout(0)
        with suppress(OSError):  # no route at the moment: the next one may have one
            asker.connect(self._to)
        ready.register(asker, selectors.EVENT_READ, self)
        self._sockets.append(asker)
        self._since = now
        if len(self._sockets) > KEPT:
            old = self._sockets.pop(0)
            ready.unregister(old)
            old.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
