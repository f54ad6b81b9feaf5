# SPDX-License-Identifier: Apache-2.0
"""The cluster's shared parameters, and what must hold between them and a node's underlay.

Every node of a cluster has the same ones; the store refuses a node that differs. Pure: no netlink,
no files. Prefix lengths are in bits, MTUs in bytes of the IP packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from pycni.errors import ClusterError, InvalidPool

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

LONGEST_NODE_PREFIX = {4: 30, 6: 126}
"""A pod CIDR holds its network address, a gateway and at least one pod (IPv4: and a broadcast)."""

V4_MAPPED = ip_network("::ffff:0:0/96")
"""RFC 4291, section 2.5.5.2: how the dataplane writes IPv4 addresses."""

FUTURE_USE = ip_network("240.0.0.0/4")
"""RFC 1112, section 4: reserved; kernels do not forward it."""

THIS_NETWORK = ip_network("0.0.0.0/8")
"""RFC 1122, section 3.2.1.3: hosts on "this" network, never a destination."""

VNI_MAX = 2**24 - 1
"""RFC 7348, section 5: the VNI has 24 bits."""

VXLAN_OVERHEAD = {4: 50, 6: 70}
"""By family of the VTEPs: outer IP 20 or 40, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348, 5)."""

IPIP_OVERHEAD = {4: 20, 6: 40}
"""By family of the VTEPs: the outer IP header (RFC 2003, RFC 2473)."""

IPV4_MTU_MIN = 576
"""RFC 791, section 3.1: what every host must be able to receive."""

IPV6_MTU_MIN = 1280
"""RFC 8200, section 5."""


@dataclass(frozen=True)
class Cluster:
    """What all nodes agree on. Raises ClusterError when the parts do not fit each other."""

    cidrs: tuple[IPNetwork, ...]
    """At most one per family; all pod addresses are in them."""
    node_prefix4: int
    """Length of a node's IPv4 pod CIDR."""
    node_prefix6: int
    """Length of a node's IPv6 pod CIDR."""
    vni: int
    port: int
    """UDP destination port of the overlay."""

    def __post_init__(self) -> None:
        families = [cidr.version for cidr in self.cidrs]
        if not families or len(set(families)) != len(families):
            raise ClusterError(
                f"{len(families)} cluster CIDRs ({_join(self.cidrs) or 'none'})",
                hint="give one IPv4 CIDR, one IPv6 CIDR, or one of each",
            )
        for cidr in self.cidrs:
            _check_cidr(cidr, self.node_prefix(cidr.version))

    def node_prefix(self, version: int) -> int:
        """Length of a node's pod CIDR of that IP version (4 or 6)."""
        return self.node_prefix4 if version == 4 else self.node_prefix6

    def has_family(self, version: int) -> bool:
        """Whether pods get an address of that IP version (4 or 6)."""
        return any(cidr.version == version for cidr in self.cidrs)


def node_capacity(cidr: IPNetwork, node_prefix: int) -> int:
    """How many nodes a cluster CIDR has pod CIDRs for."""
    return 1 << (node_prefix - cidr.prefixlen)


def gateway(cidr: IPNetwork) -> IPAddress:
    """The pods' default gateway: the first host address of the node's pod CIDR.

    Raises InvalidPool for a CIDR with no room for a gateway and a pod.
    """
    check_room(cidr)
    return cidr.network_address + 1


def check_room(cidr: IPNetwork) -> None:
    """Raises InvalidPool if a pod CIDR has no room for a gateway and a pod."""
    longest = LONGEST_NODE_PREFIX[cidr.version]
    if cidr.prefixlen > longest:
        raise InvalidPool(
            f"the pod CIDR {cidr} has no room for a gateway and a pod",
            hint=f"a pod CIDR must be a /{longest} or larger",
        )


def check_underlay(cluster: Cluster, networks: Iterable[IPNetwork]) -> None:
    """Raises ClusterError if a cluster CIDR overlaps one of the networks the node has already.

    Default routes (/0) overlap everything and are ignored.
    """
    for network in networks:
        for cidr in cluster.cidrs:
            if network.prefixlen and overlap(cidr, network):
                raise ClusterError(
                    f"the cluster CIDR {cidr} overlaps the network {network} of this node",
                    hint="choose cluster_cidrs that no network around the nodes uses",
                )


def check_routes(cluster: Cluster, networks: Iterable[IPNetwork]) -> None:
    """Raises ClusterError if the node has a route to a cluster CIDR, or to a part of one.

    A route to a network around it is no obstacle: the cluster's own is more specific.
    """
    for network in networks:
        for cidr in cluster.cidrs:
            if overlap(cidr, network) and network.prefixlen >= cidr.prefixlen:
                raise ClusterError(
                    f"this node has a route to {network}, which is in the cluster CIDR {cidr}",
                    hint="remove the route, or choose other cluster_cidrs",
                )


def overlay_mtu(uplink_mtu: int, overhead: int, cluster: Cluster) -> int:
    """Largest pod packet that fits the uplink with `overhead` bytes of outer headers.

    Raises ClusterError when that is less than the pods' IP versions need.
    """
    mtu = uplink_mtu - overhead
    if mtu < mtu_needed(cluster):
        raise ClusterError(
            f"the uplink's MTU of {uplink_mtu} leaves {mtu} bytes for pods, "
            f"IPv{_most_demanding(cluster)} needs {mtu_needed(cluster)}",
            hint=f"raise the uplink's MTU to {mtu_needed(cluster) + overhead} or more"
            + (", or run the cluster without IPv6" if cluster.has_family(6) else ""),
        )
    return mtu


def mtu_needed(cluster: Cluster) -> int:
    """The smallest MTU that pods with these IP versions can have."""
    return IPV6_MTU_MIN if cluster.has_family(6) else IPV4_MTU_MIN


def _most_demanding(cluster: Cluster) -> int:
    return 6 if cluster.has_family(6) else 4


def _check_cidr(cidr: IPNetwork, node_prefix: int) -> None:
    longest = LONGEST_NODE_PREFIX[cidr.version]
    if not cidr.prefixlen <= node_prefix <= longest:
        raise ClusterError(
            f"nodes cannot have a /{node_prefix} each out of the cluster CIDR {cidr}",
            hint=f"node_prefix.ipv{cidr.version} must be from {cidr.prefixlen} to {longest}"
            if cidr.prefixlen <= longest
            else f"the cluster CIDR must be a /{longest} or larger",
        )
    if not is_usable(cidr):
        raise ClusterError(
            f"pods cannot have addresses out of {cidr}",
            hint="choose a private range, such as 10.244.0.0/16 or fd00:10:244::/56",
        )


def is_usable(cidr: IPNetwork) -> bool:
    """Whether pods can have addresses of a network, or a single one."""
    nobodys = any(overlap(cidr, one) for one in (V4_MAPPED, THIS_NETWORK, FUTURE_USE))
    return is_routable(cidr.network_address) and not nobodys


def is_routable(address: IPAddress) -> bool:
    """Whether other nodes can send to an address: one of unicast that is not for one link, one host
    or nobody (RFC 6890: 0/8, 127/8, 169.254/16, 240/4; RFC 4291, section 2.4)."""
    return not (
        address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address.is_unspecified
        or address.is_reserved
        or address in THIS_NETWORK
    )


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Whether two networks have an address in common.

    `overlaps` of ipaddress leaves 390 bytes at each network that it looks at (its last address and
    its hostmask), and the 5,000 nodes of a large cluster have 10,000 networks.
    """
    if one.version != other.version:
        return False
    rest = one.max_prefixlen - min(one.prefixlen, other.prefixlen)
    return int(one.network_address) >> rest == int(other.network_address) >> rest


def _join(cidrs: Iterable[IPNetwork]) -> str:
    return ", ".join(map(str, cidrs))
