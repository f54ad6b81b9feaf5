# SPDX-License-Identifier: Apache-2.0
"""What a receiver finds in a frame: an IP packet, and a tunnel in that.

A frame is read here the way a generous receiver reads it: it follows every extension header and
takes what it finds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from bpf.world import GATEWAY_MAC, VXLAN_PORT
from fuzz.wire_packets import (
    AH,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    EXTENSIONS,
    FRAGMENT,
    ICMP,
    ICMPV6,
    IP_IN_IP,
    IPIP,
    UDP,
)
from fuzz.wire_pools import mac

GATEWAY = mac(GATEWAY_MAC)
BROADCAST = b"\xff\xff\xff\xff"


@dataclass(frozen=True)
class Read:
    """What a receiver finds in an IP packet."""

    src: bytes
    dst: bytes
    proto: int
    """Of the upper layer."""
    upper: bytes | None
    """Its bytes; None in a fragment that is not the first."""
    at: int
    """Where they are in the frame."""
    complete: bool = True
    """Whether the chain of headers ends within this packet."""
    more: bool = False
    """Whether this is the first of several fragments."""

    @property
    def port(self) -> int | None:
        """Destination port of UDP."""
        if self.proto != UDP or self.upper is None or len(self.upper) < 4:
            return None
        return int.from_bytes(self.upper[2:4], "big")

    @property
    def is_ipip(self) -> bool:
        return self.proto in IPIP and self.upper is not None

    @property
    def may_be_vxlan(self) -> bool:
        """Whether a receiver may find it, alone or put together with other fragments."""
        if self.upper is None:  # RFC 8200 4.5: what is behind, the first fragment says
            return self.proto == UDP or len(self.src) == 16
        return self.port == VXLAN_PORT

    @property
    def is_of_neighbour(self) -> bool:
        """ND (RFC 4861), an ICMP redirect, or a router advertisement of IPv4."""
        if not self.upper:
            return False
        if len(self.src) == 4:
            return self.proto == ICMP and self.upper[0] in (5, 9)
        return self.proto == ICMPV6 and 133 <= self.upper[0] <= 137

    @property
    def is_cut(self) -> bool:
        """Whether the next fragment has what tells a message or a port."""
        seen = {UDP: 4, ICMP: 1, ICMPV6: 1}.get(self.proto, 0)
        return self.more and self.upper is not None and len(self.upper) < seen

    @property
    def is_group(self) -> bool:
        if len(self.dst) == 4:
            return self.dst[0] & 0xF0 == 0xE0 or self.dst == BROADCAST
        return self.dst[0] == 0xFF

    @property
    def is_link_local(self) -> bool:
        """To or from."""
        return any(
            one[:2] == b"\xa9\xfe" if len(one) == 4 else one[0] == 0xFE and one[1] & 0xC0 == 0x80
            for one in (self.src, self.dst)
        )

    @property
    def is_martian(self) -> bool:
        """To an address that leaves no host."""
        if len(self.dst) == 4:
            return self.dst[0] in (0, 127) or self.dst[0] >= 240
        return self.dst[:4] == bytes(4)


def read(frame: bytes) -> Read | None:
    """The IP packet of an Ethernet frame; None if there is none."""
    kind, packet = frame[12:14], frame[14:]
    if kind == ETH_P_IP and len(packet) >= 20 and packet[0] >> 4 == 4:
        return _read4(packet)
    if kind == ETH_P_IPV6 and len(packet) >= 40 and packet[0] >> 4 == 6:
        return _read6(packet)
    return None


def _read4(packet: bytes) -> Read:
    header, length = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    fragment = int.from_bytes(packet[6:8], "big")
    upper = None if fragment & 0x1FFF else packet[header:length]
    more = bool(fragment & 0x2000)
    return Read(packet[12:16], packet[16:20], packet[9], upper, 14 + header, more=more)


def _read6(packet: bytes) -> Read:
    length, proto, at = int.from_bytes(packet[4:6], "big"), packet[6], 40
    # before hop-by-hop options, a length of zero leaves the packet as long as it is
    end = len(packet) if not length and not proto else 40 + length
    body = packet[:end]
    src, dst, more = packet[8:24], packet[24:40], False
    while proto in EXTENSIONS:
        if at + 8 > len(body):
            return Read(src, dst, proto, b"", 14 + at, complete=False)
        if proto == FRAGMENT:
            size, where = 8, int.from_bytes(body[at + 2 : at + 4], "big")
            if where & 0xFFF8:
                return Read(src, dst, body[at], None, 14 + at + size)
            more |= bool(where & 1)
        else:
            size = (body[at + 1] + 2) * 4 if proto == AH else (body[at + 1] + 1) * 8
        proto, at = body[at], at + size
    return Read(src, dst, proto, body[at:], 14 + at, more=more)


@dataclass(frozen=True)
class Outer:
    """A packet that carries another."""

    src: bytes
    dst: bytes
    inside: bytes
    """A frame."""
    vni: int | None
    """None: it is IP in IP."""
    whole: bool = True
    """Whether the packet inside ends before the outer one."""


def unwrap(frame: bytes) -> Outer | None:
    """The VXLAN in a frame, if the kernel would take it for that; None otherwise."""
    packet = read(frame)
    if packet is None or packet.port != VXLAN_PORT or packet.upper is None:
        return None
    body = packet.upper
    length = int.from_bytes(body[4:6], "big")
    if not length and len(packet.src) == 16:
        length = len(body)  # RFC 2675 4
    if not 8 + 8 + 14 <= length <= len(body) or not body[8] & 8:
        return None
    vni = int.from_bytes(body[12:15], "big")
    return Outer(packet.src, packet.dst, body[16:length], vni)


def unwrap_ipip(frame: bytes) -> Outer | None:
    """The packet in IP in IP, with the outer Ethernet header and what is behind the outer packet;
    None if there is none."""
    packet = read(frame)
    if packet is None or not packet.is_ipip or not packet.upper or packet.more:
        return None
    body = packet.upper
    kind = ETH_P_IP if packet.proto == IP_IN_IP else ETH_P_IPV6
    length = int.from_bytes(body[2:4] if kind == ETH_P_IP else body[4:6], "big")
    whole = length + (0 if kind == ETH_P_IP else 40) <= len(body)
    return Outer(packet.src, packet.dst, frame[:12] + kind + frame[packet.at :], None, whole)


def is_answer(frame: bytes, after: bytes) -> bool:
    """Whether `after` is what the programs answer to a pod's own question."""
    if after[:6] != frame[6:12] or after[6:12] != GATEWAY:
        return False
    if frame[12:14] == ETH_P_ARP:
        return after[12:14] == ETH_P_ARP and after[20:22] == b"\0\2" and after[22:28] == GATEWAY
    question, answer = read(frame), read(after)
    return bool(
        question and answer and question.upper and answer.upper
        and question.proto == answer.proto == ICMPV6
        and (question.upper[0], answer.upper[0]) == (135, 136)
        and answer.dst == question.src and answer.upper[24:32] == b"\2\1" + GATEWAY
    )  # fmt: skip
