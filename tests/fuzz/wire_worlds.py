# SPDX-License-Identifier: Apache-2.0
"""The worlds of random frames: who sends, what is loaded, and what this node knows of the others.

The rules take it from here, the programs from the maps: a test mixes these up. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bpf.layout import ON
from bpf.world import (
    FAMILIES,
    IPV4,
    IPV6,
    NO_NEIGHBOUR,
    NO_ROUTE,
    NODE_THREE_MAC,
    NODE_TWO_MAC,
    POD_ONE_MAC,
    POD_TWO_MAC,
    ROUTER_MAC,
    UPLINK_IFINDEX,
    UPLINK_MAC,
    VETH_ONE,
    VETH_TWO,
    Endpoint,
    Family,
    Fib,
    NextHop,
    Tables,
    cluster,
    second_addresses,
)
from fuzz.wire_pools import PUBLISHED, link_local

VXLAN, DIRECT, IPIP = "vxlan", "direct", "ipip"
"""How packets go from node to node."""
COMES_IN_ON = VETH_ONE
"""test_run's packets come in on the loopback device."""
NO_MAC = "00:00:00:00:00:00"


@dataclass(frozen=True)
class Peer:
    """Another node, as this one knows it."""

    mac: str
    """Of the node, or of the router to it."""
    takes: str = VXLAN
    """What packets to it may be, beside VXLAN."""
    is_routed: bool = False
    """Whether a router is between."""


@dataclass(frozen=True)
class World:
    """What is loaded, and who sends."""

    sender: str
    """"pod" or "stranger"."""
    underlay: Family = IPV4
    flags: tuple[str, ...] = ()
    """Of the pods."""
    config: tuple[str, ...] = ()
    """What is on in struct config; after "no_", what is off."""
    kernel: Fib = NO_ROUTE
    """What the kernel says of each other node where `nexthops` has no MAC."""

    is_away: bool = False
    """Whether the other nodes are on another link than that by which a stranger's frames come."""

    @property
    def name(self) -> str:
        more = [f"asking{self.kernel.result}"] * self.asks + ["away"] * self.is_away
        return "-".join((self.sender, self.underlay.name, *self.flags, *self.config, *more))

    @property
    def asks(self) -> bool:
        """Whether the MACs of other nodes are known to the kernel alone."""
        return self.kernel != NO_ROUTE

    def constants(self) -> dict[str, bytes]:
        return {
            name.removeprefix("no_"): ON if name == IPIP else bytes([not name.startswith("no_")])
            for name in self.config
        }

    def peers(self) -> dict[str, Peer]:
        """By VTEP. Only one of two takes what is on, so that the other shows mistakes."""
        first, second, *_ = (*(one for one in (DIRECT, IPIP) if one in self.config), VXLAN, VXLAN)
        routed = "routed" in self.config
        two = Peer(ROUTER_MAC if routed else NODE_TWO_MAC, first, is_routed=routed)
        three = Peer(NODE_THREE_MAC, second)
        if self.asks:
            two, three = (replace(one, mac=self.kernel.dst_mac) for one in (two, three))
        return {self.underlay.node_two: two, self.underlay.node_three: three}

    def tables(self) -> Tables:
        """Pods that have their addresses by DHCP, too, and one outside of the cluster's networks,
        as node two has one; and next hops to all nodes."""
        tables = cluster(self.underlay, **dict.fromkeys(self.flags, True))
        endpoints, remotes = dict(tables.endpoints), dict(tables.remotes)
        for address, ifindex in ((POD_ONE_MAC, VETH_ONE), (POD_TWO_MAC, VETH_TWO)):
            endpoints[link_local(address)] = Endpoint(ifindex, address)
        for family in FAMILIES:
            here, far = PUBLISHED[family.name]
            endpoints[here] = endpoints[family.pod_one]
            remotes[f"{far}/{family.bits}"] = self.underlay.node_two
        return replace(
            tables,
            endpoints=endpoints,
            remotes=remotes,
            nodes=second_addresses(self.underlay).nodes,
            nexthops={
                vtep: self._hop(peer)
                for vtep, peer in self.peers().items()
                if not self.asks or peer.takes != VXLAN
            },
        )

    def _hop(self, peer: Peer) -> NextHop:
        elsewhere = self.sender == "pod" or self.is_away
        return NextHop(
            ifindex=UPLINK_IFINDEX if elsewhere else COMES_IN_ON,
            dst_mac=NO_MAC if self.asks else peer.mac,
            on_link=not peer.is_routed,
            direct=peer.takes == DIRECT,
            ipip=peer.takes == IPIP,
            unresolved=self.asks,
        )


KNOWS = Fib(0, UPLINK_IFINDEX, NODE_TWO_MAC, UPLINK_MAC)
LOOKS_FOR = Fib(NO_NEIGHBOUR, UPLINK_IFINDEX)
HAS_SEEN = Fib(0, COMES_IN_ON, NODE_TWO_MAC, UPLINK_MAC)
HAS_SEEN_A_ROUTER = Fib(0, COMES_IN_ON, ROUTER_MAC, UPLINK_MAC, gateway=IPV4.stranger)

WORLDS = (
    World("pod"),
    World("pod", IPV6, config=("own_encap",)),
    World("pod", flags=("masquerade",), config=("own_encap",)),
    World("pod", flags=("masquerade", "queued")),
    World("pod", IPV6, flags=("shaped",), config=("own_encap",)),
    World("pod", config=("netkit",)),
    World("stranger", config=("own_encap",)),
    World("stranger", IPV6, config=("own_encap",)),
    World("stranger", flags=("shaped",)),
    # Without outer headers
    World("pod", config=("direct",)),
    World("pod", IPV6, config=("direct", "own_encap")),
    World("pod", IPV6, flags=("masquerade", "queued"), config=("direct",)),
    World("pod", config=("direct", "routed", "own_encap")),
    World("pod", IPV6, config=("direct", "routed")),
    World("pod", config=("direct",), kernel=LOOKS_FOR),
    World("pod", IPV6, config=("direct", "own_encap"), kernel=KNOWS),
    World("stranger", config=("direct",)),
    World("stranger", IPV6, config=("direct",)),
    World("stranger", config=("direct", "own_encap")),
    World("stranger", IPV6, flags=("shaped",), config=("direct", "own_encap")),
    World("stranger", config=("direct", "routed")),
    World("stranger", config=("direct", "own_encap"), kernel=HAS_SEEN),
    World("stranger", config=("direct", "routed"), kernel=HAS_SEEN_A_ROUTER),
    World("stranger", config=("direct", "own_encap"), is_away=True),
    # In IPIP
    World("pod", config=("ipip",)),
    World("pod", IPV6, config=("ipip", "own_encap")),
    World("pod", flags=("masquerade",), config=("ipip", "own_encap", "netkit")),
    World("pod", config=("ipip",), kernel=KNOWS),
    World("pod", IPV6, config=("ipip", "own_encap"), kernel=LOOKS_FOR),
    World("stranger", config=("ipip",)),
    World("stranger", IPV6, config=("ipip",)),
    World("stranger", flags=("shaped",), config=("ipip", "own_encap")),
    World("stranger", IPV6, config=("ipip", "own_encap")),
    World("stranger", config=("ipip", "own_encap", "no_decap_l3")),
    World("stranger", IPV6, config=("ipip", "no_decap_l3")),
    # Both, as for a minute between the two
    World("pod", config=("direct", "ipip", "own_encap")),
    World("pod", IPV6, config=("direct", "ipip")),
    World("stranger", config=("direct", "ipip", "own_encap")),
    World("stranger", IPV6, config=("direct", "ipip")),
)
