# SPDX-License-Identifier: Apache-2.0
"""Questions asked all the time, and which of them had no answer, by the moment they were asked.

A server sends back what it gets. What could not be sent, and what arrived and was not read, is not
lost, and told apart. Times are CLOCK_MONOTONIC: the same in all namespaces.
"""

from __future__ import annotations

import errno
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
KEPT = 10
"""Former sockets of a target that are still listened to, each for FRESH: on a busy machine answers
come late."""
PATIENCE = 3.0
"""Seconds to wait for the last answers, if --patience says nothing else."""
NUMBER = struct.Struct("!Q")
ROOM = 1 << 20
"""Bytes of a receive buffer, as far as net.core.rmem_max leaves them."""
SO_MEMINFO, SK_MEMINFO_DROPS, SK_MEMINFO_VARS = 55, 8, 9
"""From asm-generic/socket.h and linux/sock_diag.h."""


def reflect(port: int, addresses: list[str]) -> None:
    """Send each datagram back from the address that it was sent to. Prints the port when all
    addresses are listened to; and, when standard input has a line or ends, how many came, how many
    could not be sent back, and how many found the receive buffer full."""
    servers = [_listening(address, port) for address in addresses]
    came, unanswered = 0, 0
    with selectors.DefaultSelector() as ready:
        for server in (*servers, sys.stdin):
            ready.register(server, selectors.EVENT_READ)
        say(port)
        while sys.stdin not in (those := [key.fileobj for key, _ in ready.select()]):
            for server in those:
                assert isinstance(server, socket.socket)
                there, back = _send_back(server)
                came, unanswered = came + there, unanswered + there - back
    say({"came": came, "unanswered": unanswered, "unread": sum(map(_overflows, servers))})


def _listening(address: str, port: int) -> socket.socket:
    server = _opened(address)
    server.bind((address, port))
    return server


def _send_back(server: socket.socket) -> tuple[int, int]:
    """All that is there: how many came, and how many went."""
    came = went = 0
    while True:
        try:
            data, client = server.recvfrom(1 << 16)
        except BlockingIOError:
            return came, went
        except OSError:  # an ICMP error about an earlier answer
            continue
        came += 1
        with suppress(OSError):  # no way back at the moment
            server.sendto(data, client)
            went += 1


def watch(targets: list[str], *, patience: float) -> None:
    """Ask all targets, `ADDRESS,PORT` each, until standard input has a line or ends; print by
    target how many questions there were, when each one was that had no answer or could not be sent,
    and how many answers found the receive buffer full. Waits `patience` seconds for the last."""
    watched = [_Target(target) for target in targets]
    with selectors.DefaultSelector() as ready:
        ready.register(sys.stdin, selectors.EVENT_READ)
        turn = time.monotonic()
        while not _is_over(ready, watched, turn):
            for target in watched:
                target.ask(ready)
            turn = max(turn + INTERVAL, time.monotonic() - FRESH)
        _is_over(ready, watched, time.monotonic() + patience, to_the_end=True)
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
        self._sockets: list[socket.socket] = []
        self._since = 0.0
        self._asked = 0
        self._unsent: dict[int, tuple[float, str]] = {}
        self._unread = 0
        self.open: dict[int, float] = {}
        """Questions without an answer yet: their time by number."""

    def ask(self, ready: selectors.BaseSelector) -> None:
        """The next question."""
        now = time.monotonic()
        try:
            if now - self._since > FRESH:
                self._renew(ready, now)
            asker = self._sockets[-1]
            asker.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # of an earlier one, by ICMP
            asker.send(NUMBER.pack(self._asked))
            self.open[self._asked] = now
        except OSError as error:  # unreachable at the moment
            self._unsent[self._asked] = now, errno.errorcode.get(error.errno or 0, str(error))
        self._asked += 1

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
        return {
            "target": self._name,
            "asked": self._asked,
            "lost": [round(when, 3) for when in self.open.values()],
            "unsent": [(round(when, 3), why) for when, why in self._unsent.values()],
            "unread": self._unread + sum(map(_overflows, self._sockets)),
        }

    def _renew(self, ready: selectors.BaseSelector, now: float) -> None:
        """A new socket. Raises OSError if there is no route at the moment."""
        asker = _opened(self._to[0])
        try:
            asker.connect(self._to)
        except OSError:
            asker.close()
            raise
        ready.register(asker, selectors.EVENT_READ, self)
        self._sockets.append(asker)
        self._since = now
        if len(self._sockets) > KEPT:
            old = self._sockets.pop(0)
            self._unread += _overflows(old)
            ready.unregister(old)
            old.close()


def _opened(address: str) -> socket.socket:
    """A socket that never waits."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    made.settimeout(0)
    return made


def _overflows(opened: socket.socket) -> int:
    """Datagrams that found the receive buffer full: they had arrived."""
    told = opened.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * SK_MEMINFO_VARS)
    drops: int = struct.unpack(f"={len(told) // 4}I", told)[SK_MEMINFO_DROPS]
    return drops
