# SPDX-License-Identifier: Apache-2.0
"""Random IP packets, with options, extension headers, fragments and tunnels in them.

Built from bytes, since no library would build most of them. Pure.
"""

from __future__ import annotations

import random
import struct

from bpf.world import FOREIGN_MAC, GATEWAY_MAC, OVERLAY_MAC, VNI, VXLAN_PORT
from fuzz.wire_pools import MACS, POOLS, mac

UDP, TCP, ICMP, ICMPV6, NO_NEXT = 17, 6, 1, 58, 59
IP_IN_IP, IPV6_IN_IP = 4, 41
IPIP = (IP_IN_IP, IPV6_IN_IP)
HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY = 0, 43, 44, 51, 60, 135
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY, 139, 140)
PROTOCOLS = (
    *(UDP,) * 3, TCP, ICMP, *(ICMPV6,) * 3, NO_NEXT, 2, *IPIP * 2, 47, 50, 132, 136, 253,
)  # fmt: skip
MESSAGES = (*range(128, 144), 0, 3, 5, 5, 8, 9, 10, 11)
PORTS = (VXLAN_PORT, VXLAN_PORT, VXLAN_PORT, 4789, 53, 67, 68, 546, 5353, 65535)
ODD = (0x00, 0x01, 0x05, 0x2C, 0x3A, 0x3C, 0x40, 0x45, 0x46, 0x60, 0x7F, 0x80, 0x87, 0xFE, 0xFF)
TOS = (*(0,) * 9, 1, 2, 2, 3, 3, 0xB8, 0xBB)
"""With congestion marks in the two lowest bits."""

ETH_P_IP, ETH_P_IPV6, ETH_P_ARP, ETH_P_8021Q = b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00"


def ip(chance: random.Random, src: bytes, dst: bytes) -> bytes:
    """EtherType and packet."""
    proto = chance.choice(PROTOCOLS)
    return carrying(chance, src, dst, proto, _upper(chance, proto, src))


def carrying(chance: random.Random, src: bytes, dst: bytes, proto: int, upper: bytes) -> bytes:
    """The same with this upper layer."""
    build = _ip4 if len(src) == 4 else _ip6
    return build(chance, src, dst, proto, upper)


def of_a_node(chance: random.Random, bits: int) -> bytes:
    """EtherType and packet: often what node two might send to node one, of the family."""
    pool = POOLS[bits]
    src = chance.choice(pool.far if chance.random() < 0.8 else pool.all)
    return ip(chance, src, chance.choice(pool.here if chance.random() < 0.8 else pool.all))


def udp(source: int, target: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


def vxlan(chance: random.Random, inside: bytes) -> bytes:
    """A frame, often in VXLAN of the overlay."""
    vni = VNI if chance.random() < 0.9 else chance.randrange(1 << 24)
    flags = 0x08000000 if chance.random() < 0.95 else chance.randrange(1 << 32)
    return struct.pack("!II", flags, vni << 8) + inside


def arp(chance: random.Random) -> bytes:
    pool = POOLS[32].all
    operation = chance.choice((1, 1, 1, 2, 3))
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + chance.choice(MACS) + chance.choice(pool) + bytes(6) + chance.choice(pool)


def checksum(header: bytes) -> int:
    """Of an IPv4 header whose own is zero (RFC 1071); of one that has it, zero."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def damaged(chance: random.Random, frame: bytes) -> bytes:
    """Half of the time the same; else with bytes changed, and perhaps cut or longer."""
    if chance.random() < 0.5:
        return frame
    raw = bytearray(frame)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        at = chance.randrange(12, min(len(raw), 80))
        raw[at] = chance.choice(ODD) if chance.random() < 0.5 else chance.randrange(256)
    shape = chance.random()
    if shape < 0.15:
        del raw[chance.randrange(15, len(raw) + 1) :]
    elif shape < 0.25:
        raw += chance.randbytes(chance.randrange(40))
    return bytes(raw)


def _ip4(chance: random.Random, src: bytes, dst: bytes, proto: int, upper: bytes) -> bytes:
    options = bytes([1]) * (4 * chance.randrange(1, 11)) if chance.random() < 0.1 else b""
    fragment = 0
    if chance.random() < 0.15:
        fragment = chance.choice((0x2000, 0x2000, 0x4000, 0x2001, 0x0001, 0x1FFF))
        if fragment == 0x2000 and chance.random() < 0.3:
            upper = upper[: chance.randrange(9)]
    length = 20 + len(options) + len(upper)
    ttl = chance.choice((1, 64, 255))
    tos = chance.choice(TOS)
    first = struct.pack("!BBHHH", 0x45 + len(options) // 4, tos, length, 7, fragment)
    header = bytearray(first + bytes([ttl, proto, 0, 0]) + src + dst)
    header += options
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return ETH_P_IP + bytes(header) + upper


def _ip6(chance: random.Random, src: bytes, dst: bytes, proto: int, upper: bytes) -> bytes:
    kinds: list[int] = []
    while chance.random() < 0.45 and len(kinds) < 12:
        kinds.append(chance.choice(EXTENSIONS))
    if kinds and chance.random() < 0.05:
        kinds += [DESTINATION] * chance.randrange(5, 10)
    chain = b""
    for number, kind in enumerate(kinds):
        following = kinds[number + 1] if number + 1 < len(kinds) else proto
        chain += bytes([following]) + _extension(chance, kind)
    if chance.random() < 0.05:
        upper = upper[: chance.randrange(5)]
    length = len(chain) + len(upper)
    if chance.random() < 0.03:
        length = chance.choice((0, length - 1 if length else 0, 8))
    first = 6 << 28 | chance.choice(TOS) << 20
    header = struct.pack("!IHBB", first, length, kinds[0] if kinds else proto, 255)
    return ETH_P_IPV6 + header + src + dst + chain + upper


def _extension(chance: random.Random, kind: int) -> bytes:
    """Without its first byte."""
    if kind == FRAGMENT:
        where = chance.choice((0, 0, 0, 1, 1, 8, 0x18, 0xFFF9))
        return b"\0" + where.to_bytes(2, "big") + b"\0\0\0\7"
    if kind == AH:
        return bytes([4]) + bytes(22)
    units = chance.choice((0, 0, 0, 0, 1, 3))
    claimed = units if chance.random() < 0.97 else chance.randrange(256)
    return bytes([claimed, 1, 4, 0, 0, 0, 0]) + bytes([1, 6, *bytes(6)]) * units


def _upper(chance: random.Random, proto: int, src: bytes) -> bytes:
    if proto == UDP:
        source, target = chance.choice(PORTS), chance.choice(PORTS)
        return udp(source, target, _datagram(chance, target))
    if proto in IPIP and chance.random() < 0.7:
        bits = 32 if (proto == IP_IN_IP) ^ (chance.random() < 0.05) else 128
        return of_a_node(chance, bits)[2:]
    if proto in (ICMP, ICMPV6):
        body = bytes(4) + (src if len(src) == 16 else bytes(16)) + b"\x02\x01" + mac(FOREIGN_MAC)
        return bytes([chance.choice(MESSAGES), 0, 0, 0]) + body
    return chance.randbytes(chance.randrange(40))


def _datagram(chance: random.Random, port: int) -> bytes:
    if port == VXLAN_PORT and chance.random() < 0.3:
        head = mac(GATEWAY_MAC) + mac(OVERLAY_MAC)
        return vxlan(chance, head + of_a_node(chance, chance.choice((32, 128))))
    return chance.randbytes(chance.randrange(24))
