# SPDX-License-Identifier: Apache-2.0
"""Frames by which hosts of one link tell who has which address: ARP for IPv4, and neighbour
discovery for IPv6. Pure; Ethernet headers included.

A probe asks whether anybody has an address, and says nothing of the asker. An announcement says who
has it. Sources: RFC 826, RFC 5227 (sections 2.1.1 and 2.3), RFC 4861 (4.3, 4.4, 7.2.6), RFC 4862
(5.4), RFC 2464 (7).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from pycni.cluster import IPAddress
from pycni.kernel.netlink import pack_mac

ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
EVERYBODY = b"\xff" * 6

ARP = struct.Struct("!HHBBH6s4s6s4s")
"""Kinds and lengths of addresses, operation, then MAC and address of sender and target."""
ETHERNET, REQUEST = 1, 1
UNKNOWN_MAC = bytes(6)

IPV6 = struct.Struct("!IHBB16s16s")
"""Version and flow, payload length, next header, hop limit, source, destination."""
ICMPV6, HOPS = 58, 255
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
MESSAGE = struct.Struct("!BBHI16s")
"""Type, code, checksum, flags, target. Options follow."""
OVERRIDE = 1 << 29
TARGET_MAC = 2
"""The option with the MAC of who has the target."""
NOBODY = IPv6Address("::")
ALL_NODES = IPv6Address("ff02::1")
SOLICITED = int(IPv6Address("ff02::1:ff00:0"))
"""The group of all addresses that end with the same 24 bits has these in the place of zeros."""


def pack_probe(address: IPAddress, mac: str) -> bytes:
    """A question for an address, by an interface with that MAC."""
    if isinstance(address, IPv4Address):
        return _arp(mac, IPv4Address(0), address)
    group = IPv6Address(SOLICITED | int(address) & 0xFFFFFF)
    message = MESSAGE.pack(NEIGHBOUR_SOLICITATION, 0, 0, 0, address.packed)
    return _icmpv6(mac, NOBODY, group, message)


def pack_announcement(address: IPAddress, mac: str) -> bytes:
    """That the interface with that MAC has an address now, whoever had it before."""
    if isinstance(address, IPv4Address):
        return _arp(mac, address, address)
    message = MESSAGE.pack(NEIGHBOUR_ADVERTISEMENT, 0, 0, OVERRIDE, address.packed)
    return _icmpv6(mac, address, ALL_NODES, message + bytes([TARGET_MAC, 1]) + pack_mac(mac))


def read_claim(frame: bytes) -> tuple[IPAddress, str] | None:
    """The address that a frame's sender has, or is probing itself, and its MAC; None: no claim."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ETH_P_ARP and len(frame) >= 14 + ARP.size:
        *_, mac, source, _, target = ARP.unpack_from(frame, 14)
        return IPv4Address(source if any(source) else target), mac.hex(":")
    if kind != ETH_P_IPV6 or len(frame) < 14 + IPV6.size + MESSAGE.size:
        return None
    _, _, following, hops, source, _ = IPV6.unpack_from(frame, 14)
    message, _, _, _, target = MESSAGE.unpack_from(frame, 14 + IPV6.size)
    if following != ICMPV6 or hops != HOPS:
        return None
    is_probe = message == NEIGHBOUR_SOLICITATION and source == NOBODY.packed
    if is_probe or message == NEIGHBOUR_ADVERTISEMENT:
        return IPv6Address(target), frame[6:12].hex(":")
    return None


def _arp(mac: str, source: IPv4Address, target: IPv4Address) -> bytes:
    own = pack_mac(mac)
    body = ARP.pack(
        ETHERNET, ETH_P_IP, 6, 4, REQUEST, own, source.packed, UNKNOWN_MAC, target.packed
    )
    return EVERYBODY + own + ETH_P_ARP.to_bytes(2, "big") + body


def _icmpv6(mac: str, source: IPv6Address, group: IPv6Address, message: bytes) -> bytes:
    pseudo = source.packed + group.packed + struct.pack("!II", len(message), ICMPV6)
    checksum = _checksum(pseudo + message)
    message = message[:2] + checksum.to_bytes(2, "big") + message[4:]
    header = IPV6.pack(6 << 28, len(message), ICMPV6, HOPS, source.packed, group.packed)
    to = b"\x33\x33" + group.packed[-4:]
    return to + pack_mac(mac) + ETH_P_IPV6.to_bytes(2, "big") + header + message


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
