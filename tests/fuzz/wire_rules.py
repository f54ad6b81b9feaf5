# SPDX-License-Identifier: Apache-2.0
"""Who may receive which packet: the rules of the overlay, without a program or a kernel.

The programs may be stricter: nothing here says what they must deliver. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network

from bpf.world import FAMILIES, LINK_LOCAL_SERVICE, VXLAN_PORT, Tables
from fuzz.wire_packets import UDP
from fuzz.wire_pools import mac
from fuzz.wire_reading import BROADCAST, GATEWAY, Read, read
from fuzz.wire_worlds import DIRECT, IPIP, Peer, World

LISTENS = ip_address(LINK_LOCAL_SERVICE).packed
DHCP_SERVER = 67
MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True)
class Endpoint:
    """A pod of node one, packed."""

    ifindex: int
    mac: bytes


@dataclass(frozen=True)
class Rules:
    """Node one of the packet tables, in this world."""

    world: World

    @cached_property
    def tables(self) -> Tables:
        return self.world.tables()

    @cached_property
    def endpoints(self) -> dict[bytes, Endpoint]:
        return {
            ip_address(where).packed: Endpoint(ep.ifindex, mac(ep.mac))
            for where, ep in self.tables.endpoints.items()
        }

    @cached_property
    def peers(self) -> dict[bytes, Peer]:
        """Other nodes by VTEP."""
        return {ip_address(vtep).packed: peer for vtep, peer in self.world.peers().items()}

    @cached_property
    def _nodes(self) -> dict[bytes, bytes]:
        """Each address of a node to its VTEP."""
        own = {vtep: vtep for vtep in (self.own_vtep, *self.peers)}
        more = self.tables.nodes.items()
        return own | {ip_address(one).packed: ip_address(vtep).packed for one, vtep in more}

    @cached_property
    def gateways(self) -> frozenset[bytes]:
        return frozenset(ip_address(family.gateway).packed for family in FAMILIES)

    @cached_property
    def own_vtep(self) -> bytes:
        return ip_address(self.world.underlay.node_one).packed

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
        networks = [ip_network(family.cluster) for family in FAMILIES]
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

    def node(self, where: bytes) -> bytes | None:
        """VTEP of the other node that has an address for its pods or for itself."""
        vtep = self.owner(where) or self._nodes.get(where)
        return vtep if vtep in self.peers else None

    def is_here(self, where: bytes) -> bool:
        """Whether it is this node's own address."""
        return where in self.gateways or self._nodes.get(where) == self.own_vtep

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
        if packet.is_ipip and IPIP in self.world.config:
            return "IPIP of a pod"
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
        if self.node(packet.dst) != vtep:
            return "another node's packet"
        return None if self.owner(packet.dst) else self.out_of_pods(packet)

    def is_dhcp(self, ifindex: int, frame: bytes) -> bool:
        """Whether it is what a DHCP client of this interface may send to all."""
        packet = read(frame)
        if packet is None or packet.dst != BROADCAST or packet.port != DHCP_SERVER:
            return False
        client = (packet.upper or b"")[36:42]
        return any(ep.ifindex == ifindex and ep.mac == client for ep in self.endpoints.values())

    def from_node(self, vtep: bytes, frame: bytes) -> tuple[Read | None, str | None]:
        """What came from a node, without outer headers, and why nobody here may get it."""
        packet = read(frame)
        if packet is None:
            return None, "no IP"
        if vtep not in self.peers:
            return packet, "of no node"
        if self.node(packet.src) != vtep:
            return packet, "its source is not that node's"
        return packet, self._common(packet, frame)

    def into_stack(self, packet: Read) -> str | None:
        """Why another node's packet may not get into this host's stack."""
        return self.out_of_pods(packet) if self.is_here(packet.dst) else "not for this node"

    def from_stranger(self, frame: bytes, vtep: bytes) -> str | None:
        """Why VXLAN with that outer source is not that node's, by its MAC: that of a node which
        gets packets without outer headers is known, unless only the kernel knows it."""
        peer = self.peers.get(vtep)
        if peer is None or peer.takes != DIRECT or self.world.asks:
            return None
        right = frame[6:12] == mac(peer.mac) and not self.world.is_away
        return None if right else "VXLAN, but not from that node's MAC"
