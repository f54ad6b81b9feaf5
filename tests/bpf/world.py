# SPDX-License-Identifier: Apache-2.0
"""The world of the packet tables: who has which address, and what the maps hold of it.

This node is node one; pod one, on interface VETH_ONE, sends. Everything exists in both families,
and a table takes a `Family` so that they stand side by side. Knows nothing of BPF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

GATEWAY_MAC = "02:70:79:63:6e:69"
OVERLAY_MAC = "02:70:79:63:6e:6f"
POD_ONE_MAC = "0a:00:00:00:00:01"
POD_TWO_MAC = "0a:00:00:00:00:02"
FOREIGN_MAC = "0a:00:00:00:00:99"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
GROUP_MAC = "01:00:5e:01:02:03"

VETH_ONE = 1  # test_run's packets come in on the loopback device, and that is always 1
VETH_TWO = 42
STACK_IFINDEX = 7  # on a node these two are one device
VXLAN_IFINDEX = 8
UPLINK_IFINDEX = 9
UPLINK_MAC = "0a:00:00:00:01:01"
ROUTER_MAC = "0a:00:00:00:01:fe"
NODE_TWO_MAC = "0a:00:00:00:01:02"
NODE_THREE_MAC = "0a:00:00:00:01:03"
VNI = 100
VXLAN_PORT = 8472
OVERLAY_MTU = 1450
MASQUERADE_MARK = 0x10000
LINK_LOCAL_SERVICE = "169.254.20.10"  # that the settings let pods reach


@dataclass(frozen=True)
class Family:
    """The addresses of one family, and how to build its packets."""

    name: str
    bits: int
    pod_one: str
    pod_two: str
    pod_far: str  # on node two
    pod_third: str  # on node three
    nobody: str  # of the cluster, and in no map
    gateway: str
    far_gateway: str  # of node two
    node_one: str
    node_two: str
    node_three: str
    seconds: tuple[str, str, str]  # further addresses of nodes one, two and three
    stranger: str  # sends VXLAN, but is no node
    world: str
    group: str
    loopback: str
    cluster: str
    far_cidr: str
    third_cidr: str

    def ip(self, src: str, dst: str, **fields: Any) -> Packet:
        return (
            IP(src=src, dst=dst, **fields) if self.bits == 32 else IPv6(src=src, dst=dst, **fields)
        )

    def from_pod_one(self, dst: str, **changes: str) -> Packet:
        """What pod one sends to `dst`, with src, eth_src or eth_dst changed."""
        eth = Ether(
            src=changes.get("eth_src", POD_ONE_MAC), dst=changes.get("eth_dst", GATEWAY_MAC)
        )
        return eth / self.ip(changes.get("src", self.pod_one), dst) / PAYLOAD


PAYLOAD = UDP(sport=40000, dport=5353) / Raw(b"twenty-four bytes or so.")

IPV4 = Family(
    "IPv4", 32,
    pod_one="10.1.1.11", pod_two="10.1.1.12", pod_far="10.1.2.11", pod_third="10.1.3.11",
    nobody="10.1.9.9", gateway="10.1.1.1", far_gateway="10.1.2.1",
    node_one="172.30.0.1", node_two="172.30.0.2", node_three="172.30.0.3",
    seconds=("172.31.0.1", "172.31.0.2", "172.31.0.3"),
    stranger="198.51.100.9", world="192.0.2.80", group="239.1.2.3", loopback="127.0.0.53",
    cluster="10.1.0.0/16", far_cidr="10.1.2.0/24", third_cidr="10.1.3.0/24",
)  # fmt: skip
IPV6 = Family(
    "IPv6", 128,
    pod_one="fd10:0:0:1::11", pod_two="fd10:0:0:1::12", pod_far="fd10:0:0:2::11",
    pod_third="fd10:0:0:3::11",
    nobody="fd10:0:0:9::9", gateway="fd10:0:0:1::1", far_gateway="fd10:0:0:2::1",
    node_one="fd30::1", node_two="fd30::2", node_three="fd30::3",
    seconds=("fd31::1", "fd31::2", "fd31::3"),
    stranger="2001:db8:9::9", world="2001:db8::80", group="ff0e::1:2:3", loopback="::1",
    cluster="fd10::/48", far_cidr="fd10:0:0:2::/64", third_cidr="fd10:0:0:3::/64",
)  # fmt: skip
FAMILIES = (IPV4, IPV6)


@dataclass(frozen=True)
class Endpoint:
    """Value of the map `endpoints`."""

    ifindex: int
    mac: str
    masquerade: bool = False
    shaped: bool = False
    forwards: bool = False
    queued: bool = False


@dataclass(frozen=True)
class NextHop:
    """Value of the map `nexthops`."""

    mtu: int = OVERLAY_MTU
    ifindex: int = UPLINK_IFINDEX
    dst_mac: str = ROUTER_MAC
    src_mac: str = UPLINK_MAC
    on_link: bool = False
    direct: bool = False
    unresolved: bool = False
    ipip: bool = False


@dataclass(frozen=True)
class Fib:
    """What the kernel answers when asked for the route to a node: the result of bpf_fib_lookup(),
    the interface (0: none), both MACs, and the gateway ("": the node is on the link)."""

    result: int = 4  # BPF_FIB_LKUP_RET_NOT_FWDED
    ifindex: int = 0
    dst_mac: str = "00:00:00:00:00:00"
    src_mac: str = "00:00:00:00:00:00"
    gateway: str = ""


NO_ROUTE = Fib()
NO_NEIGHBOUR = 7  # BPF_FIB_LKUP_RET_NO_NEIGH


@dataclass(frozen=True)
class Tables:
    """Contents of the maps: pods here, prefixes elsewhere to their VTEP, the known VTEPs, how
    packets to them leave, the MTU of narrow paths, and further addresses of nodes to their VTEP."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    remotes: Mapping[str, str] = field(default_factory=dict)
    vteps: tuple[str, ...] = ()
    nexthops: Mapping[str, NextHop] = field(default_factory=dict)
    path_mtus: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)


EMPTY = Tables()


def cluster(underlay: Family, **flags: bool) -> Tables:
    """Two pods here, two other nodes, in both families, over an underlay of one family."""
    endpoints: dict[str, Endpoint] = {}
    remotes: dict[str, str] = {}
    for family in FAMILIES:
        endpoints[family.pod_one] = Endpoint(VETH_ONE, POD_ONE_MAC, **flags)
        endpoints[family.pod_two] = Endpoint(VETH_TWO, POD_TWO_MAC, **flags)
        remotes[family.far_cidr] = underlay.node_two
        remotes[family.third_cidr] = underlay.node_three
    return Tables(endpoints, remotes, (underlay.node_two, underlay.node_three))


def second_addresses(underlay: Family) -> Tables:
    """The same, and each node has an address that is not its VTEP, of either family."""
    nodes = {
        second: vtep
        for family in FAMILIES
        for second, vtep in zip(
            family.seconds, (underlay.node_one, underlay.node_two, underlay.node_three), strict=True
        )
    }
    return replace(cluster(underlay), nodes=nodes)
