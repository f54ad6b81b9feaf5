# SPDX-License-Identifier: Apache-2.0
"""Random frames: what a pod may send that may do everything in its own namespace, and what a host
on the underlay may.

Built from bytes, since no library would build most of them. Half of them are then damaged. Pure.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from ipaddress import ip_address

from bpf.world import (
    FAMILIES,
    FOREIGN_MAC,
    GATEWAY_MAC,
    IPV4,
    LINK_LOCAL_SERVICE,
    OVERLAY_MAC,
    POD_ONE_MAC,
    POD_TWO_MAC,
    VNI,
    VXLAN_PORT,
    Family,
)

UDP, TCP, ICMP, ICMPV6, NO_NEXT = 17, 6, 1, 58, 59
HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY = 0, 43, 44, 51, 60, 135
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY, 139, 140)
PROTOCOLS = (*(UDP,) * 3, TCP, ICMP, *(ICMPV6,) * 3, NO_NEXT, 2, 4, 41, 47, 50, 132, 136, 253)
MESSAGES = (*range(128, 144), 0, 3, 5, 5, 8, 9, 10, 11)
PORTS = (VXLAN_PORT, VXLAN_PORT, VXLAN_PORT, 4789, 53, 67, 68, 546, 5353, 65535)
ODD = (0x00, 0x01, 0x05, 0x2C, 0x3A, 0x3C, 0x40, 0x45, 0x46, 0x60, 0x7F, 0x80, 0x87, 0xFE, 0xFF)

ETH_P_IP, ETH_P_IPV6, ETH_P_ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def link_local(text: str) -> str:
    """Of a MAC (RFC 4291, appendix A)."""
    raw = mac(text)
    host = bytes([raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]])
    return str(ip_address(b"\xfe\x80" + bytes(6) + host))


@dataclass(frozen=True)
class Pools:
    """The addresses of one family, packed: those that are likely, and all."""

    own: tuple[bytes, ...]
    """Of pod one, which sends."""
    far: tuple[bytes, ...]
    """Of node two, which sends."""
    here: tuple[bytes, ...]
    """Of node one."""
    all: tuple[bytes, ...]


def pools(family: Family) -> Pools:
    """Everybody in the world of the packet tables, and addresses of nobody."""
    odd: tuple[str, ...]
    if family is IPV4:
        odd = (
            "0.0.0.0", "0.1.2.3", "255.255.255.255", "240.0.0.1", "169.254.169.254",
            LINK_LOCAL_SERVICE, "224.0.0.1", "127.0.0.1",
        )  # fmt: skip
    else:
        odd = (
            "::", "::1", f"::{IPV4.pod_two}", f"::ffff:{IPV4.pod_two}", f"::ffff:0:{IPV4.world}",
            "fe80::1", link_local(POD_ONE_MAC), link_local(POD_TWO_MAC), "ff02::1", "ff02::2",
        )  # fmt: skip
    names = (
        family.pod_one, family.pod_two, family.pod_far, family.pod_third, family.nobody,
        family.gateway, family.far_gateway, family.node_one, family.node_two, family.node_three,
        family.stranger, family.world, family.group, family.loopback, *odd,
    )  # fmt: skip
    own = (family.pod_one,) * 6 + ((link_local(POD_ONE_MAC),) if family is not IPV4 else ())
    far = (family.pod_far, family.pod_far, family.far_gateway, family.node_two)
    here = (family.pod_one, family.pod_two, family.gateway, family.node_one)
    return Pools(*map(_packed, (own, far, here, names)))


def _packed(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(ip_address(name).packed for name in names)


POOLS = {family.bits: pools(family) for family in FAMILIES}
MACS = tuple(map(mac, (POD_ONE_MAC,) * 12 + (POD_TWO_MAC, GATEWAY_MAC, FOREIGN_MAC)))
TARGET_MACS = tuple(
    map(mac, (GATEWAY_MAC,) * 12 + (POD_TWO_MAC, "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"))
)


def of_a_pod(chance: random.Random) -> bytes:
    """What pod one might send."""
    pick = chance.random
    eth = chance.choice(TARGET_MACS) + chance.choice(MACS)
    if pick() < 0.03:
        return damaged(chance, eth + ETH_P_ARP + _arp(chance))
    bits = 32 if pick() < 0.4 else 128
    pool = POOLS[bits]
    src = chance.choice(pool.own if pick() < 0.9 else pool.all)
    return damaged(chance, eth + _ip(chance, src, chance.choice(pool.all)))


def of_a_stranger(chance: random.Random, sources: tuple[bytes, ...], vtep: bytes) -> bytes:
    """What might come in on the uplink: often VXLAN, perhaps by a node's address."""
    inner = POOLS[32 if chance.random() < 0.5 else 128]
    inside = mac(GATEWAY_MAC) + mac(OVERLAY_MAC)
    src = chance.choice(inner.far if chance.random() < 0.8 else inner.all)
    dst = chance.choice(inner.here if chance.random() < 0.8 else inner.all)
    inside += _ip(chance, src, dst)
    if chance.random() < 0.5:
        inside = damaged(chance, inside)
    vni = VNI if chance.random() < 0.9 else chance.randrange(1 << 24)
    flags = 0x08000000 if chance.random() < 0.95 else chance.randrange(1 << 32)
    payload = struct.pack("!II", flags, vni << 8) + inside
    port = VXLAN_PORT if chance.random() < 0.95 else chance.choice(PORTS)
    udp = struct.pack("!HHHH", 50000, port, 8 + len(payload), 0) + payload
    eth = bytes(6) + mac(FOREIGN_MAC)  # test_run's packets come in on the loopback device
    target = vtep if chance.random() < 0.9 else chance.choice(POOLS[len(vtep) * 8].all)
    source = chance.choice(sources)
    frame = eth + (
        _ip4(chance, source, target, UDP, udp)
        if len(vtep) == 4
        else _ip6(chance, source, target, UDP, udp)
    )
    return damaged(chance, frame) if chance.random() < 0.4 else frame


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
        del raw[chance.randrange(15, len(raw)) :]
    elif shape < 0.25:
        raw += chance.randbytes(chance.randrange(40))
    return bytes(raw)


def _ip(chance: random.Random, src: bytes, dst: bytes) -> bytes:
    """EtherType and packet."""
    proto = chance.choice(PROTOCOLS)
    upper = _upper(chance, proto, src)
    if len(src) == 4:
        return _ip4(chance, src, dst, proto, upper)
    return _ip6(chance, src, dst, proto, upper)


def _ip4(chance: random.Random, src: bytes, dst: bytes, proto: int, upper: bytes) -> bytes:
    options = bytes([1]) * (4 * chance.randrange(1, 11)) if chance.random() < 0.1 else b""
    fragment = 0
    if chance.random() < 0.15:
        fragment = chance.choice((0x2000, 0x2000, 0x4000, 0x2001, 0x0001, 0x1FFF))
        if fragment == 0x2000 and chance.random() < 0.3:
            upper = upper[: chance.randrange(9)]
    length = 20 + len(options) + len(upper)
    ttl = chance.choice((1, 64, 255))
    first = struct.pack("!BBHHH", 0x45 + len(options) // 4, 0, length, 7, fragment)
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
    header = struct.pack("!IHBB", 6 << 28, length, kinds[0] if kinds else proto, 255)
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
        data = chance.randbytes(chance.randrange(24))
        ports = (chance.choice(PORTS), chance.choice(PORTS))
        return struct.pack("!HHHH", *ports, 8 + len(data), 0) + data
    if proto in (ICMP, ICMPV6):
        body = bytes(4) + (src if len(src) == 16 else bytes(16)) + b"\x02\x01" + mac(FOREIGN_MAC)
        return bytes([chance.choice(MESSAGES), 0, 0, 0]) + body
    return chance.randbytes(chance.randrange(40))


def _arp(chance: random.Random) -> bytes:
    pool = POOLS[32].all
    operation = chance.choice((1, 1, 1, 2, 3))
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + chance.choice(MACS) + chance.choice(pool) + bytes(6) + chance.choice(pool)


def checksum(header: bytes) -> int:
    """Of an IPv4 header whose own is zero (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
