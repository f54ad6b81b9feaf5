# SPDX-License-Identifier: Apache-2.0
"""Streams: to be measured, or to be seen to arrive."""

from __future__ import annotations

import socket
import struct
import sys
import time
from contextlib import suppress

from support.traffic.sockets import ANSWER_SECONDS, opened, say

DATAGRAM = bytes(1200)
BLOCK = bytes(1 << 16)
RECEIVED = struct.Struct("!I")
"""What a server of `absorb` says after each piece: its bytes."""


def count(protocol: str, address: str, *, after: float) -> None:
    """From the first bytes to the last: how long a client took to connect does not count.

    What comes in the first seconds, `after` of them, does not count either.
    """
    with opened(protocol, address) as server:
        server.bind((address, 0))
        if protocol == "tcp":
            server.listen()
        say(server.getsockname()[1])
        source = server.accept()[0] if protocol == "tcp" else server
        source.settimeout(None if protocol == "tcp" else ANSWER_SECONDS)
        source.recv(1 << 16)
        begin = time.monotonic() + after
        while time.monotonic() < begin:
            source.recv(1 << 16)
        total, begin = 0, time.monotonic()
        end = begin
        with suppress(TimeoutError):
            while data := source.recv(1 << 16):
                total, end = total + len(data), time.monotonic()
        say({"bytes": total, "seconds": end - begin})


def stream(protocol: str, address: str, port: int, *, seconds: float) -> None:
    """As fast as may be."""
    with opened(protocol, address) as client:
        client.connect((address, port))
        end = time.monotonic() + seconds
        data = BLOCK if protocol == "tcp" else DATAGRAM
        while time.monotonic() < end:
            with suppress(BlockingIOError, ConnectionRefusedError):
                client.send(data)
    say("done")


def absorb(address: str) -> None:
    """Print the port; confirm all that clients send, one client after the other, until killed."""
    with opened("tcp", address) as server:
        server.bind((address, 0))
        server.listen()
        say(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            with client, suppress(OSError):
                while data := client.recv(len(BLOCK)):
                    client.sendall(RECEIVED.pack(len(data)))


def pump(address: str, port: int, *, size: int, within: float) -> None:
    """By one connection. Prints "ready"; then, for each line of stdin, sends `size` bytes and
    prints the seconds until all are confirmed, null if that takes longer than `within`."""
    with opened("tcp", address) as client:
        client.connect((address, port))
        say("ready")
        for _ in sys.stdin:
            begin = time.monotonic()
            client.settimeout(within)
            try:
                client.sendall(bytes(size))
                confirmed = 0
                while confirmed < size:
                    client.settimeout(max(0.001, begin + within - time.monotonic()))
                    (piece,) = RECEIVED.unpack(client.recv(RECEIVED.size, socket.MSG_WAITALL))
                    confirmed += piece
            except OSError:
                say(None)
                return
            say(time.monotonic() - begin)
