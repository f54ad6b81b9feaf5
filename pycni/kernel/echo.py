# SPDX-License-Identifier: Apache-2.0
"""Which addresses answer an ICMP echo request (RFC 792, RFC 4443 section 4).

Sends from the calling thread's network namespace, and needs CAP_NET_RAW.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from ipaddress import ip_address

from pycni.cluster import IPAddress

HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number."""
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
FAMILIES = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}
ROUNDS = 3
"""Requests that each address gets: the first may wait for a neighbour entry and be lost."""


def who_answers(addresses: Iterable[IPAddress], *, seconds: float = 1.0) -> set[IPAddress]:
    """Those that answer within `seconds`; returns as soon as all have. Raises PermissionError."""
    wanted = set(addresses)
    answered: set[IPAddress] = set()
    identifier = int.from_bytes(os.urandom(2), "big")
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        sockets: dict[int, socket.socket] = {}
        for version in {address.version for address in wanted}:
            family, protocol = FAMILIES[version]
            one = stack.enter_context(socket.socket(family, socket.SOCK_RAW, protocol))
            one.settimeout(0)
            sockets[version] = one
            selector.register(one, selectors.EVENT_READ, version)
        for number in range(ROUNDS):
            for address in wanted - answered:
                _send(sockets[address.version], address, identifier, number)
            deadline = time.monotonic() + seconds / ROUNDS
            while wanted - answered and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    answered |= wanted & _replies(sockets[key.data], key.data, identifier)
            if not wanted - answered:
                break
    return answered


def request(version: int, identifier: int, number: int) -> bytes:
    """An echo request without data. Of ICMPv6, the kernel fills the checksum in."""
    head = HEADER.pack(REQUEST[version], 0, 0, identifier, number)
    if version == 6:
        return head
    total = sum(struct.unpack("!4H", head))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return HEADER.pack(REQUEST[version], 0, checksum, identifier, number)


def is_reply(packet: bytes, version: int, identifier: int) -> bool:
    """Whether a packet of a raw socket answers a request of ours. IPv4's have an IP header."""
    start = (packet[0] & 0x0F) * 4 if version == 4 and packet else 0
    message = packet[start : start + HEADER.size]
    if len(message) < HEADER.size:
        return False
    kind, _, _, found, _ = HEADER.unpack(message)
    return (kind, found) == (REPLY[version], identifier)


def _send(one: socket.socket, address: IPAddress, identifier: int, number: int) -> None:
    with suppress(OSError):  # without a route, nobody answers
        one.sendto(request(address.version, identifier, number), (str(address), 0))


def _replies(one: socket.socket, version: int, identifier: int) -> set[IPAddress]:
    found: set[IPAddress] = set()
    with suppress(BlockingIOError):
        while True:
            packet, (host, *_) = one.recvfrom(2048)
            if is_reply(packet, version, identifier):
                found.add(ip_address(host.partition("%")[0]))
    return found
