# SPDX-License-Identifier: Apache-2.0
"""Wakes a thread that reads from a connection, when it is to stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STOP_INTERVAL = 0.2
"""Seconds between two looks at whether a stream is to end."""


@contextmanager
def ended_by(stop: threading.Event, connection: socket.socket) -> Iterator[None]:
    """In the block, end the connection soon after `stop` is set: who reads from it is woken."""
    done = threading.Event()
    closer = threading.Thread(
        target=_shut_down_at, args=(connection, stop, done), daemon=True, name="closer"
    )
    closer.start()
    try:
        yield
    finally:
        done.set()
        closer.join()


def _shut_down_at(connection: socket.socket, stop: threading.Event, done: threading.Event) -> None:
    """SSLSocket's own shutdown is not safe from here: another thread reads."""
    while not done.wait(STOP_INTERVAL):
        if stop.is_set():
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            return
