# SPDX-License-Identifier: Apache-2.0
"""Records of the ring buffer on a unix stream socket, from the agent to each follower.

A frame is a header, length and number in network order, and a record as the programs wrote it. The
number says how many records this follower lost just before this one, because it was slow. The first
frame has no record: it says that the follower gets all that happens from now on. Followers send
nothing.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from pycni.errors import NotAvailable

HEADER = struct.Struct("!IQ")
"""Length of the record in bytes; records lost before it."""
BEGIN = HEADER.pack(0, 0)
REFUSED = 2**64 - 1
"""In the place of the number of lost records."""
RECORD_MAX = 1 << 16
"""Bytes. A longer frame means that the other side speaks another protocol."""


def pack(record: bytes, lost: int) -> bytes:
    """A frame."""
    return HEADER.pack(len(record), lost) + record


def refusal(reason: str) -> bytes:
    """The frame that tells a follower why it is refused."""
    return pack(reason.encode(), REFUSED)


def connect(path: Path) -> socket.socket | None:
    """A connection to the agent that serves `path`; None if none does."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


def begin(connection: socket.socket, timeout: float) -> None:
    """Wait for the first frame. Raises TimeoutError after `timeout` seconds, EOFError or
    ConnectionError if the agent ends the connection, NotAvailable if it refuses this follower; the
    connection is then closed."""
    connection.settimeout(timeout)
    try:
        length, lost = HEADER.unpack(_exactly(connection, len(BEGIN)))
        if lost == REFUSED:
            reason = _exactly(connection, min(length, RECORD_MAX)).decode(errors="replace")
            raise NotAvailable(
                f"the agent refuses this follower: {reason}",
                hint="run it as root, with few other `pycni drops --follow`",
            )
    except BaseException:
        connection.close()
        raise
    connection.settimeout(None)


def records(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Each record, with the number of those lost before it, until the agent ends.

    Raises NotAvailable if the agent speaks another protocol.
    """
    with connection:
        while True:
            try:
                length, lost = HEADER.unpack(_exactly(connection, HEADER.size))
                if length > RECORD_MAX:
                    raise NotAvailable(
                        f"the agent tells of an event of {length} bytes",
                        hint="it is of another version: restart it",
                    )
                record = _exactly(connection, length)
            except (EOFError, ConnectionError):
                return
            yield lost, record


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise EOFError("the agent closed the connection")
        data += chunk
    return bytes(data)
