# SPDX-License-Identifier: Apache-2.0
"""Servers on ports, and clients that ask them who they are."""

from __future__ import annotations

import signal
import socket
import struct
import sys
import time
from contextlib import suppress

from support.traffic import sctp
from support.traffic.sockets import ANSWER_SECONDS, opened, say

QUESTION = b"who am I?"


def serve(protocol: str, address: str, port: int) -> None:
    """Answer each client with the address that it is seen by, until killed.

    Prints the port (0: any that is free), then source and size of each request.
    """
    with opened(protocol, address) as server:
        server.bind((address, 0 if protocol == "sctp" else port))
        if protocol == "tcp":
            server.listen()
        say(port or server.getsockname()[1])
        while True:
            source, size = ANSWERS[protocol](server, port)
            say({"source": source, "size": size})


def _answer_tcp(server: socket.socket, _: int) -> tuple[str, int]:
    connection, client = server.accept()
    with connection, suppress(OSError):
        connection.sendall(client[0].encode())
    return client[0], 0


def _answer_udp(server: socket.socket, _: int) -> tuple[str, int]:
    data, client = server.recvfrom(1 << 16)
    with suppress(OSError):  # no way back: the test only wants to know who it was
        server.sendto(client[0].encode(), client)
    return client[0], len(data)


def _answer_sctp(server: socket.socket, port: int) -> tuple[str, int]:
    answer = b""
    while not answer:  # the socket has all ports'
        data, client = server.recvfrom(2048)
        answer = sctp.answer(data, client[0], port, text=client[0].encode())
    with suppress(OSError):
        server.sendto(answer, (client[0], 0))
    return client[0], len(data)


ANSWERS = {"tcp": _answer_tcp, "udp": _answer_udp, "sctp": _answer_sctp}


def ask(protocol: str, address: str, port: int, *, size: int) -> str | None:
    """What the server says, if it is the one that was asked; `size`: bytes of a datagram."""
    if protocol == "sctp":
        return _ask_sctp(address, port)
    with opened(protocol, address) as client:
        client.settimeout(ANSWER_SECONDS)
        try:
            client.connect((address, port))
            if protocol == "udp":
                client.send(bytes(size))
            return client.recv(100).decode()
        except OSError:
            return None


def _ask_sctp(address: str, port: int) -> str | None:
    with opened("sctp", address) as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect((address, 0))
        client.send(sctp.packet(sctp.SOURCE_PORT, port, sctp.INIT, b""))
        end = time.monotonic() + ANSWER_SECONDS
        with suppress(OSError):
            while time.monotonic() < end:
                data, server = client.recvfrom(2048)
                packet = sctp.without_ip_header(data, server[0])
                if packet[:4] == struct.pack("!HH", port, sctp.SOURCE_PORT):
                    return packet[sctp.TEXT :].rstrip(b"\0").decode()
    return None


def keep(address: str, port: int) -> None:
    """From one UDP socket; prints "ready" first."""
    with opened("udp", address) as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect((address, port))
        say("ready")
        for _ in sys.stdin:
            try:
                client.send(QUESTION)
                say(client.recv(100).decode())
            except OSError:
                say(None)


def hold(address: str, port: int) -> None:
    """Have a UDP port until killed."""
    with opened("udp", address) as holder:
        holder.bind((address, port))
        say(port)
        signal.pause()
