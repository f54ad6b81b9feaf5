# SPDX-License-Identifier: Apache-2.0
"""Whether the checksums of a packet are right."""

from __future__ import annotations

import socket
import struct

from support.traffic import sctp

ICMPV6 = 58
IP6_FRAGMENT = 44


def is_right(frame: bytes) -> bool:
    """Of one Ethernet frame; a fragment has only its IP header's (RFC 791, 768, 9293, 4443)."""
    packet = frame[14:]
    if frame[12:14] == b"\x08\x00":
        return _is_right4(packet)
    if frame[12:14] == b"\x86\xdd":
        return _is_right6(packet)
    return True


def _is_right4(packet: bytes) -> bool:
    header = (packet[0] & 15) * 4
    total = int.from_bytes(packet[2:4], "big")
    if ones_sum(packet[:header]) != 0xFFFF or total > len(packet):
        return False
    if int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return True
    protocol, body = packet[9], packet[header:total]
    if protocol == socket.IPPROTO_ICMP:
        return ones_sum(body) == 0xFFFF
    return _is_right_above(protocol, packet[12:20] + struct.pack("!HH", protocol, len(body)), body)


def _is_right6(packet: bytes) -> bool:
    length = int.from_bytes(packet[4:6], "big")
    protocol, body = packet[6], packet[40 : 40 + length]
    if len(body) != length:
        return False
    if protocol == IP6_FRAGMENT:
        return True
    return _is_right_above(protocol, packet[8:40] + struct.pack("!II", length, protocol), body)


def _is_right_above(protocol: int, pseudo_header: bytes, body: bytes) -> bool:
    if protocol == socket.IPPROTO_SCTP:
        return sctp.is_right(body)
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP, ICMPV6):
        return True
    return ones_sum(pseudo_header + body) == 0xFFFF


def ones_sum(data: bytes) -> int:
    """RFC 1071: of 16-bit words, with their carries."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
