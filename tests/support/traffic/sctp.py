# SPDX-License-Identifier: Apache-2.0
"""SCTP by hand: one INIT, one INIT ACK, a checksum (RFC 9260)."""

from __future__ import annotations

import struct

INIT, INIT_ACK = 1, 2
SOURCE_PORT = 40132
TEXT = 32
"""Bytes of a packet before what `packet` was given to send: common header, chunk's fixed part."""

CHECKSUM = slice(8, 12)


def packet(source: int, target: int, kind: int, text: bytes) -> bytes:
    """One INIT or INIT ACK chunk, with `text` after its fixed part (section 3.3.2)."""
    text += bytes(-len(text) % 4)
    tag = 0 if kind == INIT else 0x1234
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20 + len(text), 0x1234, 65536, 1, 1, 1) + text
    return with_checksum(struct.pack("!HHII", source, target, tag, 0) + chunk)


def answer(data: bytes, client: str, port: int, *, text: bytes) -> bytes:
    """The INIT ACK to what a raw socket received; nothing if that was no INIT to this port."""
    received = without_ip_header(data, client)
    their_port, to, _, _, kind = struct.unpack_from("!HHIIB", received)
    if (to, kind) != (port, INIT):
        return b""
    return packet(port, their_port, INIT_ACK, text)


def with_checksum(data: bytes) -> bytes:
    """A packet whose checksum is right (appendix A: least significant byte first)."""
    blank = data[:8] + bytes(4) + data[12:]
    return data[:8] + struct.pack("<I", crc32c(blank)) + data[12:]


def is_right(data: bytes) -> bool:
    """Whether a packet's checksum is right."""
    return data == with_checksum(data)


def without_ip_header(data: bytes, source: str) -> bytes:
    """raw(7): IPv4 packets come with their header, IPv6 ones without."""
    return data if ":" in source else data[(data[0] & 0xF) * 4 :]


def _table() -> list[int]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


TABLE = _table()


def crc32c(data: bytes) -> int:
    """Appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
