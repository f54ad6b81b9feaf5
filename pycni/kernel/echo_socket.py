# SPDX-License-Identifier: Apache-2.0
"""Echo: whether another host's kernel answers at an address.

Sockets belong to the network namespace of the thread that makes them. Sources: RFC 792, RFC 4443
(section 4), icmp(7), raw(7).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Self

from pycni.cluster import IPAddress

REQUEST = {4: 8, 6: 128}
REPLY = {4: 0, 6: 129}
PROTOCOLS = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number; each in network order."""

SOL_RAW, ICMP_FILTER, ICMPV6_FILTER = 255, 1, 1
"""linux/icmp.h, linux/icmpv6.h: a bit for each type that the socket is not told of."""
TOKEN = 16
"""Bytes that tell a reply to us from any other: too many to be guessed."""
ROOM = 64 << 10
"""Bytes that may wait to be read. Whoever floods us with replies costs us those."""
DATAGRAM = 2048


class EchoSocket:
    """Sends requests from one of this host's addresses, and reads the replies. Never waits.

    Used by one thread. Raises PermissionError without CAP_NET_RAW, OSError if the address is not
    this host's.
    """

    def __init__(self, source: IPAddress) -> None:
        self._version = source.version
        protocol = PROTOCOLS[source.version]
        self._socket = socket.socket(
            FAMILIES[source.version], socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        try:
            self._socket.settimeout(0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
            self._hear_replies_only()
            self._socket.bind((str(source), 0))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """A descriptor that is readable when replies wait."""
        return self._socket.fileno()

    def send(self, destination: IPAddress, token: bytes) -> None:
        """Send a request. Raises OSError, as of a destination without a route."""
        self._socket.sendto(pack(self._version, token), (str(destination), 0))

    def replies(self) -> Iterator[tuple[IPAddress, bytes]]:
        """Who replied, with which token, as far as is known now. Raises OSError."""
        for _ in range(ROOM // TOKEN):
            try:
                data, sender = self._socket.recvfrom(DATAGRAM)
            except BlockingIOError:
                return
            token = unpack(self._version, data)
            if token is not None:
                yield ip_address(sender[0]), token

    def _hear_replies_only(self) -> None:
        if self._version == 4:
            mask = struct.pack("=I", ~(1 << REPLY[4]) & 0xFFFFFFFF)
            self._socket.setsockopt(SOL_RAW, ICMP_FILTER, mask)
            return
        words = [0xFFFFFFFF] * 8
        words[REPLY[6] >> 5] &= ~(1 << (REPLY[6] & 31))
        mask = struct.pack("=8I", *words)
        self._socket.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, mask)


def pack(version: int, token: bytes) -> bytes:
    """A request. The kernel computes the checksum of ICMPv6, and of ICMP nobody but us."""
    identifier = os.getpid() & 0xFFFF
    head = HEADER.pack(REQUEST[version], 0, 0, identifier, 0)
    if version == 4:
        head = HEADER.pack(REQUEST[version], 0, checksum(head + token), identifier, 0)
    return head + token


def unpack(version: int, data: bytes) -> bytes | None:
    """The token of a reply; None for what is none of ours. Raw sockets have IPv4's header, too."""
    start = (data[0] & 0x0F) * 4 if version == 4 and data else 0
    message = data[start:]
    if len(message) != HEADER.size + TOKEN or message[0] != REPLY[version]:
        return None
    return message[HEADER.size :]


def checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
