# SPDX-License-Identifier: Apache-2.0
"""Who may receive which frame: the rules of the overlay, without a program or a kernel.

A frame is read here the way a generous receiver reads it: it follows every extension header and
takes what it finds. The programs may be stricter: nothing here says what they must deliver. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network

from bpf.world import (
    GATEWAY_MAC,
    LINK_LOCAL_SERVICE,
    VXLAN_PORT,
    Family,
    Tables,
)
from fuzz.wire_frames import (
    AH,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    EXTENSIONS,
    FRAGMENT,
    ICMP,
    ICMPV6,
    UDP,
    mac,
)

GATEWAY = mac(GATEWAY_MAC)
LISTENS = ip_address(LINK_LOCAL_SERVICE).packed
DHCP_SERVER = 67
BROADCAST = b"\xff\xff\xff\xff"
MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True)
class Read:
    """What a receiver finds in an IP packet."""

    src: bytes
    dst: bytes
    proto: int
    """Of the upper layer."""
    upper: bytes | None
    """Its bytes; None in a fragment that is not the first."""
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
    return Read(packet[12:16], packet[16:20], packet[9], upper, more=more)


def _read6(packet: bytes) -> Read:
    length, proto, at = int.from_bytes(packet[4:6], "big"), packet[6], 40
    # before hop-by-hop options, a length of zero leaves the packet as long as it is
    end = len(packet) if not length and not proto else 40 + length
    body = packet[:end]
    src, dst, more = packet[8:24], packet[24:40], False
    while proto in EXTENSIONS:
        if at + 8 > len(body):
            return Read(src, dst, proto, b"", complete=False)
        if proto == FRAGMENT:
            size, where = 8, int.from_bytes(body[at + 2 : at + 4], "big")
            if where & 0xFFF8:
                return Read(src, dst, body[at], None)
            more |= bool(where & 1)
        else:
            size = (body[at + 1] + 2) * 4 if proto == AH else (body[at + 1] + 1) * 8
        proto, at = body[at], at + size
    return Read(src, dst, proto, body[at:], more=more)


@dataclass(frozen=True)
class Endpoint:
    """A pod of node one, packed."""

    ifindex: int
    mac: bytes


@dataclass(frozen=True)
class Rules:
    """Node one of the packet tables, with these tables."""

    tables: Tables
    underlay: Family
    families: tuple[Family, ...]

    @cached_property
    def endpoints(self) -> dict[bytes, Endpoint]:
        return {
            ip_address(where).packed: Endpoint(ep.ifindex, mac(ep.mac))
            for where, ep in self.tables.endpoints.items()
        }

    @cached_property
    def vteps(self) -> frozenset[bytes]:
        return frozenset(ip_address(vtep).packed for vtep in self.tables.vteps)

    @cached_property
    def gateways(self) -> frozenset[bytes]:
        return frozenset(ip_address(family.gateway).packed for family in self.families)

    @cached_property
    def own_vtep(self) -> bytes:
        return ip_address(self.underlay.node_one).packed

    @cached_property
    def _owners(self) -> list[tuple[int, int, int, bytes]]:
        """Family, first address, last address, VTEP."""
        found = []
        for text, vtep in self.tables.remotes.items():
            network = ip_network(text)
            first, last = int(network.network_address), int(network.broadcast_address)
            found.append((network.max_prefixlen // 8, first, last, ip_address(vtep).packed))
        return found

    @cached_property
    def _clusters(self) -> list[tuple[int, int, int]]:
        networks = [ip_network(family.cluster) for family in self.families]
        return [
            (n.max_prefixlen // 8, int(n.network_address), int(n.broadcast_address))
            for n in networks
        ]

    def owner(self, where: bytes) -> bytes | None:
        """VTEP of the node that has an address for its pods."""
        number = int.from_bytes(where, "big")
        for size, first, last, vtep in self._owners:
            if size == len(where) and first <= number <= last:
                return vtep
        return None

    def in_cluster(self, where: bytes) -> bool:
        number = int.from_bytes(where, "big")
        return any(
            size == len(where) and first <= number <= last for size, first, last in self._clusters
        )

    def of_pod(self, ifindex: int, frame: bytes) -> tuple[Read | None, str | None]:
        """What a pod's frame is, and why nobody but the pod itself may get it."""
        packet = read(frame)
        if packet is None:
            return None, "no IP"
        source = self.endpoints.get(packet.src)
        if source is None or source.ifindex != ifindex:
            return packet, "its source is not the pod's"
        if source.mac != frame[6:12]:
            return packet, "its MAC is not the pod's"
        return packet, self._common(packet, frame)

    def _common(self, packet: Read, frame: bytes) -> str | None:
        if frame[0] & 1 or packet.is_group:
            return "it is for a group"
        if packet.is_of_neighbour:
            return "it is a neighbour's message"
        if not packet.complete or (packet.is_cut and packet.proto != UDP):
            return "it may hide anything"
        if packet.is_link_local and packet.dst != LISTENS:
            return "it has a link-local address"
        if len(packet.src) == 16 and MAPPED in (packet.src[:12], packet.dst[:12]):
            return "it passes for IPv4"
        return None

    def to_pod(self, packet: Read, before: bytes, after: bytes, ifindex: int) -> str | None:
        """What is wrong with delivering this packet to the pod on an interface."""
        target = self.endpoints.get(packet.dst)
        if target is None or target.ifindex != ifindex:
            return "another pod's packet"
        if after[:12] not in (target.mac + GATEWAY, before[:12]):
            return "wrong MACs"
        return None if after[12:] == before[12:] else "changed"

    def out_of_pods(self, packet: Read) -> str | None:
        """Why it may not leave the pods' network, for a node or the world."""
        if packet.is_cut:
            return "it may hide VXLAN"
        return "VXLAN of a pod" if packet.port == VXLAN_PORT else None

    def to_stack(self, packet: Read) -> str | None:
        """Why a pod's packet may not get into the host's stack."""
        if packet.is_martian:
            return "no address for a wire"
        if packet.dst in self.endpoints:
            return "a pod's packet"
        if packet.dst in self.gateways:
            return self.out_of_pods(packet)
        if self.owner(packet.dst):
            return None  # too big for the overlay: the stack cuts it
        if self.in_cluster(packet.dst):
            return "an address of nobody"
        return self.out_of_pods(packet)

    def to_node(self, packet: Read, vtep: bytes) -> str | None:
        """Why a pod's packet may not go to the node with that VTEP."""
        owner = self.owner(packet.dst)
        if owner is None and packet.dst in self.vteps:
            owner = packet.dst
            if wrong := self.out_of_pods(packet):
                return wrong
        return None if owner == vtep else "another node's packet"

    def is_dhcp(self, ifindex: int, frame: bytes) -> bool:
        """Whether it is what a DHCP client of this interface may send to all."""
        packet = read(frame)
        if packet is None or packet.dst != BROADCAST or packet.port != DHCP_SERVER:
            return False
        client = (packet.upper or b"")[36:42]
        return any(ep.ifindex == ifindex and ep.mac == client for ep in self.endpoints.values())

    def from_node(self, vtep: bytes, frame: bytes) -> tuple[Read | None, str | None]:
        """What came out of a node's VXLAN, and why nobody here may get it."""
        packet = read(frame)
        if packet is None:
            return None, "no IP"
        if vtep not in self.vteps:
            return packet, "of no node"
        if self.owner(packet.src) != vtep and packet.src != vtep:
            return packet, "its source is not that node's"
        return packet, self._common(packet, frame)

    def into_stack(self, packet: Read) -> str | None:
        """Why another node's packet may not get into this host's stack."""
        if packet.dst not in self.gateways and packet.dst != self.own_vtep:
            return "not for this node"
        return self.out_of_pods(packet)


@dataclass(frozen=True)
class Outer:
    """VXLAN as the kernel's socket reads it."""

    src: bytes
    dst: bytes
    vni: int
    inside: bytes


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
    return Outer(packet.src, packet.dst, int.from_bytes(body[12:15], "big"), body[16:length])


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
