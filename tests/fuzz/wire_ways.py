# SPDX-License-Identifier: Apache-2.0
"""The ways from node to node, and the rules of each: in VXLAN, in IP in IP, and without outer
headers, where the MACs say from whom and to whom. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network

from bpf.world import FAMILIES, UPLINK_MAC, VNI
from fuzz.wire_packets import ETH_P_IP, checksum
from fuzz.wire_pools import OWN_MAC, mac
from fuzz.wire_reading import GATEWAY, Read, read, unwrap, unwrap_ipip
from fuzz.wire_rules import Rules
from fuzz.wire_runs import REDIRECT, REDIRECT_NEIGH, Went
from fuzz.wire_worlds import DIRECT, IPIP, VXLAN

VXLAN_ROOM = 8 + 8 + 14
"""Bytes of UDP, VXLAN and the inner Ethernet header."""
SHORTEST = 14 + 20
"""A frame with an IP packet."""


@dataclass(frozen=True)
class Passage:
    """A packet between this node and another."""

    way: str
    vtep: bytes
    """The other node's."""
    inside: bytes
    """The frame without outer headers."""
    whole: bool = True
    """Whether it ends before its outer packet."""


@dataclass(frozen=True)
class Ways:
    """Of node one in a world."""

    rules: Rules

    def leaving(self, packet: Read, frame: bytes, after: bytes) -> Passage | None:
        """How a pod's packet leaves by the uplink; None if it has wrong outer headers."""
        if after[12:] == frame[12:]:
            return Passage(DIRECT, self.rules.node(packet.dst) or b"", after)
        outer, way = unwrap(after), VXLAN
        if outer is None:
            outer, way = unwrap_ipip(after), IPIP
        if outer is None or outer.src != self.rules.own_vtep or outer.vni not in (VNI, None):
            return None
        size = 20 if len(outer.src) == 4 else 40
        added = size if way == IPIP else size + VXLAN_ROOM
        broken = size == 20 and checksum(after[14:34])
        if len(after) != len(outer.inside) + added or broken:
            return None  # options, extension headers
        return Passage(way, outer.dst, outer.inside)

    def sent(
        self, passage: Passage, packet: Read, frame: bytes, after: bytes, went: Went
    ) -> str | None:
        """What is wrong with a pod's packet that leaves so."""
        if passage.inside[12:] != frame[12:]:
            return "changed"
        peer = self.rules.peers.get(passage.vtep)
        if peer is None:
            return "to no node"
        if passage.way not in (VXLAN, peer.takes):
            return f"{passage.way} to a node that takes none"
        if passage.way == DIRECT and (wrong := self._without_outer(packet, passage.vtep)):
            return wrong
        wrong = self._by_the_link(passage, frame, after, went)
        return wrong or self.rules.to_node(packet, passage.vtep)

    def _without_outer(self, packet: Read, vtep: bytes) -> str | None:
        """Why its receiver could not know whose it is, or a router not where it goes."""
        rules = self.rules
        if not rules.in_cluster(packet.src) and not rules.in_cluster(packet.dst):
            return "its receiver does not know it for a pod's"
        if not rules.peers[vtep].is_routed:
            return None
        known = packet.dst == vtep or (rules.owner(packet.dst) and rules.in_cluster(packet.dst))
        return None if known and self._is_of_this_node(packet.src) else "no router knows it"

    def _is_of_this_node(self, where: bytes) -> bool:
        number = int.from_bytes(where, "big")
        return any(
            size == len(where) and first <= number <= last for size, first, last in self._own
        )

    @cached_property
    def _own(self) -> list[tuple[int, int, int]]:
        """This node's pod CIDRs: size of an address, first, last."""
        found = []
        for family in FAMILIES:
            length = ip_network(family.far_cidr).prefixlen
            own = ip_network(f"{family.gateway}/{length}", strict=False)
            first, last = int(own.network_address), int(own.broadcast_address)
            found.append((family.bits // 8, first, last))
        return found

    def _by_the_link(self, passage: Passage, frame: bytes, after: bytes, went: Went) -> str | None:
        """Whether the next hop is that node's."""
        if went.helper == REDIRECT_NEIGH:
            right = self.rules.world.asks and went.neighbour == passage.vtep
            return None if right and after[:12] == frame[:12] else "another neighbour"
        there = mac(self.rules.peers[passage.vtep].mac) + mac(UPLINK_MAC)
        return None if went.helper == REDIRECT and after[:12] == there else "wrong MACs"

    def arriving(self, frame: bytes, after: bytes) -> list[Passage]:
        """What a packet may be that a program took from the uplink, by the ways that are open."""
        return [one for one in self._open(frame) if same_but_marks(one.inside, after)]

    def received(self, passage: Passage, frame: bytes, after: bytes, went: Went) -> str | None:
        """What is wrong with delivering it."""
        if frame[:6] != OWN_MAC:
            return "delivered, but it is for another station"
        if not passage.whole:
            return "delivered, but it ends behind its outer packet"
        wrong = self.rules.from_stranger(frame, passage.vtep) if passage.way == VXLAN else None
        return f"delivered: {wrong}" if wrong else self.arrived(passage, after, went)

    def _open(self, frame: bytes) -> Iterator[Passage]:
        config, own = self.rules.world.config, self.rules.own_vtep
        outer = unwrap(frame)
        if "own_encap" in config and outer and (outer.dst, outer.vni) == (own, VNI):
            yield Passage(VXLAN, outer.src, outer.inside)
        outer = unwrap_ipip(frame)
        if IPIP in config and outer and outer.dst == own:
            yield Passage(IPIP, outer.src, outer.inside, outer.whole)
        if DIRECT in config and not self.rules.world.is_away:
            for vtep, peer in self.rules.peers.items():
                if mac(peer.mac) == frame[6:12]:
                    yield Passage(DIRECT, vtep, frame)

    def arrived(self, passage: Passage, after: bytes, went: Went) -> str | None:
        """The same for what a node sent."""
        packet, refused = self.rules.from_node(passage.vtep, passage.inside)
        if packet is None or refused:
            return f"delivered to {went.ifindex}, but {refused}"
        if not same_but_marks(passage.inside, after):
            return "changed"
        if went.into_stack:
            return self.rules.into_stack(packet) if after[:6] == GATEWAY else "wrong MACs"
        before = passage.inside
        return self.rules.to_pod(packet, before, after[:12] + before[12:], went.host_end)

    def left(self, frame: bytes) -> str | None:
        """Why the host's stack may not get a frame. Its guard (docs/host.md) drops what is of the
        overlay and not VXLAN, but sees no MAC."""
        packet = read(frame)
        if packet is None or not is_heard(frame) or packet.dst != self.rules.own_vtep:
            return None
        if not packet.may_be_vxlan:
            return None
        wrong = self.rules.from_stranger(frame, packet.src)
        return f"left to the host: {wrong}" if wrong else None


def is_heard(frame: bytes) -> bool:
    """Whether the host's IP layer takes it: it is for this station or a group of them, and its
    length holds its header and is held by the frame (ip_rcv_core, ip6_rcv_core)."""
    header, length = 40, 40 + int.from_bytes(frame[18:20], "big")
    if frame[12:14] == ETH_P_IP:
        header, length = (frame[14] & 15) * 4, int.from_bytes(frame[16:18], "big")
    sound = SHORTEST - 14 <= header <= length <= len(frame) - 14
    return sound and (frame[:6] == OWN_MAC or bool(frame[0] & 1))


def same_but_marks(before: bytes, after: bytes) -> bool:
    """Whether at most the MACs differ, and the congestion marks, which test_own_decap.py and
    test_ipip.py test."""
    if before[12:] == after[12:]:
        return True
    if len(before) != len(after) or len(before) < SHORTEST:
        return False
    unmarked = bytearray(after)
    is_ip4 = before[12:14] == ETH_P_IP
    mark = 0x03 if is_ip4 else 0x30
    unmarked[15] = after[15] & ~mark | before[15] & mark
    if is_ip4:
        unmarked[24:26] = before[24:26]
    return unmarked[12:] == before[12:]
