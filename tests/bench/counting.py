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

    def __post_init__(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def bytes(self) -> tuple[int, int]:
        """From the target, and to it."""
        return self.received, self.sent

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.connections += 1
                server = socket.create_connection(self.target)
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        to_target = sink.getpeername() == self.target
        with suppress(OSError):
            while data := source.recv(PIECE):
                sink.sendall(data)
                if to_target:
                    self.sent += len(data)
                else:
                    self.received += len(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
