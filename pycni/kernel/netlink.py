# SPDX-License-Identifier: Apache-2.0
"""Netlink messages and attributes as bytes: the one codec. Opens no socket.

What the messages say about links, addresses, routes and qdiscs is in modules of these names.
Numbers are in the machine's byte order, addresses in the network's. Source: linux/netlink.h;
netlink(7).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6
from typing import NamedTuple

from pycni.cluster import IPAddress

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_ECHO, NLM_F_DUMP_INTR = 0x1, 0x4, 0x8, 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_DUMP = 0x300
NEW = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK
"""Flags of a request that makes something and fails if it is there."""

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length with the header, type, flags, sequence number, port."""
NLATTR = struct.Struct("=HH")
"""struct nlattr: length with these four bytes, type."""
ERROR = struct.Struct("=i")
"""The start of struct nlmsgerr, and the body of NLMSG_DONE: 0, or an errno, negative."""
U16, U32 = struct.Struct("=H"), struct.Struct("=I")

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

CACHED = 512
"""Answers that are remembered as read, of each kind. An agent asks for all links, MACs and filters
again and again, and most are as they were: to read the links of 250 pods costs 15 ms."""

FAMILIES: dict[int, int] = {4: AF_INET, 6: AF_INET6}
"""Address family of an IP version."""


class NetlinkError(OSError):
    """The kernel refused a request; `errno` says why."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


class Message(NamedTuple):
    """One message of a datagram, without its header."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A message to the kernel."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[Message]:
    """The messages of a datagram. Raises ValueError if `data` is not made of messages."""
    at, end = 0, len(data)
    while at < end:
        length = 0
        if end - at >= HEADER.size:
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        if not HEADER.size <= length <= end - at:
            raise ValueError(f"a message of {length} bytes in {end - at}")
        yield Message(kind, flags, sequence, data[at + HEADER.size : at + length])
        at += length + 3 & ~3


def port_of(data: bytes) -> int:
    """The netlink port of whoever asked for the change that a datagram of events tells of: mostly
    its process ID. 0: the kernel itself, or `data` is too short."""
    return int(HEADER.unpack_from(data)[4]) if len(data) >= HEADER.size else 0


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    length = NLATTR.size + len(value)
    return NLATTR.pack(length, kind) + value + bytes(-length % 4)


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute from the byte `at` on.

    Raises ValueError if `data` is not made of attributes.
    """
    end = len(data)
    while at < end:
        length, kind = NLATTR.unpack_from(data, at) if end - at >= NLATTR.size else (0, 0)
        if not NLATTR.size <= length <= end - at:
            raise ValueError(f"an attribute of {length} bytes in {end - at}")
        yield kind & NLA_TYPE_MASK, data[at + NLATTR.size : at + length]
        at += length + 3 & ~3


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that is made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """An attribute that ends with a zero byte, as names do."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, U32.pack(value))


def read_text(value: bytes) -> str:
    """The value of a text attribute; bytes that are no UTF-8 are replaced."""
    return value.rstrip(b"\0").decode(errors="replace")


def read_number(value: bytes) -> int:
    """The value of an attribute of 32 bits."""
    found: int = U32.unpack(value)[0]
    return found


def read_address(value: bytes) -> IPAddress:
    """The IP address in an attribute of 4 or 16 bytes."""
    return IPv4Address(value) if len(value) == 4 else IPv6Address(value)


def pack_mac(mac: str) -> bytes:
    """The six bytes of a MAC."""
    return bytes.fromhex(mac.replace(":", ""))
