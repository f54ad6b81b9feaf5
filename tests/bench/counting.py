# SPDX-License-Identifier: Apache-2.0
"""Passes TCP connections on and counts their bytes."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

PIECE = 64 << 10


@dataclass
class Counting:
    """Takes connections at a listening socket, and makes one to `target` for each."""

    listener: socket.socket
    target: tuple[str, int]
    connections: int = 0
    received: int = 0
    """Bytes from the target."""
    sent: int = 0
    is_cut: bool = False
    """Whether connections are refused."""

    def __post_init__(self) -> None:
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def bytes(self) -> tuple[int, int]:
        """From the target, and to it."""
        return self.received, self.sent

    def cut(self) -> None:
        """Break all connections, and refuse those to come."""
        self.is_cut = True
        for one in list(self._open):
            _break(one)

    def mend(self) -> None:
        """The undo of `cut`."""
        self.is_cut = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.connections += 1
                if self.is_cut:
                    client.close()
                    continue
                server = socket.create_connection(self.target)
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        to_target = sink.getpeername() == self.target
        self._open.add(source)
        with suppress(OSError):
            while data := source.recv(PIECE):
                sink.sendall(data)
                if to_target:
                    self.sent += len(data)
                else:
                    self.received += len(data)
        self._open.discard(source)
        for one in (source, sink):
            _break(one)


def _break(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
