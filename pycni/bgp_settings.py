# SPDX-License-Identifier: Apache-2.0
"""The table `bgp` of the settings file: with whom a node speaks BGP, what it tells and believes.

A password is never in it, since that file may be read by others: it names files. What does not fit
the rest of the settings, `problem` says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, ip_address
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    StrictInt,
    StrictStr,
)

from pycni.cluster import Cluster, IPAddress, is_routable, overlap
from pycni.names import is_node_name
from pycni.setting_types import AbsolutePath, Cidr

ASN_MAX = 2**32 - 1
"""RFC 6793."""
HOPS_MAX = 255
HOLD_MIN, HOLD_MAX = 3, 65535
"""Seconds (RFC 4271, section 4.2)."""
PODS, PUBLISHED, FABRIC = "pods", "published", "fabric"
CLUSTER_IPS, EXTERNAL_IPS, LOAD_BALANCERS = "cluster-ips", "external-ips", "load-balancers"
OF_SERVICES = frozenset({CLUSTER_IPS, EXTERNAL_IPS, LOAD_BALANCERS})
"""What may be announced of Services."""


def _asn(value: int) -> int:
    if not 1 <= value <= ASN_MAX:
        raise ValueError(f"must be the number of an autonomous system, from 1 to {ASN_MAX}")
    return value


def _hops(value: int) -> int:
    if not 0 <= value <= HOPS_MAX:
        raise ValueError(f"must be 0 (BIRD's choice) or from 1 to {HOPS_MAX} hops")
    return value


def _hold(value: int) -> int:
    if not HOLD_MIN <= value <= HOLD_MAX:
        raise ValueError(f"must be from {HOLD_MIN} to {HOLD_MAX} seconds")
    return value


def _address(value: object) -> object:
    try:
        address = ip_address(value) if isinstance(value, str) else None
    except ValueError:
        address = None
    if address is None or not is_routable(address):
        raise ValueError("must be the IP address of a BGP speaker, in quotes")
    return address


def _router_id(value: object) -> object:
    try:
        address = IPv4Address(value) if isinstance(value, str) else None
    except ValueError:
        address = None
    if address is None or not int(address):
        raise ValueError("must be four numbers as in an IPv4 address, in quotes")
    return address


def _community(value: str) -> str:
    parts = value.split(":")
    limit = {2: 2**16, 3: 2**32}.get(len(parts), 0)
    if not all(re.fullmatch(r"[0-9]{1,10}", part) and int(part) < limit for part in parts):
        raise ValueError("must be a community such as '64512:100', or a large one, '64512:1:2'")
    return value


def _node_name(value: str) -> str:
    if not is_node_name(value):
        raise ValueError("must be the name of a node")
    return value


Asn = Annotated[StrictInt, AfterValidator(_asn)]
Community = Annotated[StrictStr, AfterValidator(_community)]


class BgpPeer(BaseModel):
    """One speaker that is no node of the store: a switch, a router, a route reflector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Annotated[IPAddress, BeforeValidator(_address)]
    asn: Asn
    """The speaker's autonomous system."""
    password_file: AbsolutePath | None = None
    """A file, for root alone, with the password of TCP's MD5 signatures (RFC 2385)."""
    bfd: StrictBool = False
    """Whether BFD (RFC 5880) ends the session within a second when the speaker is gone."""
    multihop: Annotated[StrictInt, AfterValidator(_hops)] = 0
    """Routers on the way and one more; 0: none between this node and another system's speaker."""
    communities: tuple[Community, ...] = ()
    """Written on what this speaker is told, besides those of `Bgp`."""
    client: StrictBool = False
    """Whether this node reflects routes to it (RFC 4456)."""


class Bgp(BaseModel):
    """What a node says and believes by BGP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asn: Asn
    """This node's autonomous system."""
    router_id: Annotated[IPv4Address | None, BeforeValidator(_router_id)] = None
    """None: the VTEP, or a number out of the node's name if that is an IPv6 address."""
    peers: tuple[BgpPeer, ...] = ()
    mesh: StrictBool = False
    """Whether there are sessions with all other nodes of the store; with `reflectors`, only with
    those."""
    reflectors: tuple[Annotated[StrictStr, AfterValidator(_node_name)], ...] = ()
    """Names of nodes that reflect the routes of all others to all others."""
    password_file: AbsolutePath | None = None
    """As in BgpPeer, for sessions of the mesh."""
    bfd: StrictBool = False
    """As in BgpPeer, for sessions of the mesh."""
    communities: tuple[Community, ...] = ()
    """Written on all that this node announces."""
    hold_time: Annotated[StrictInt, AfterValidator(_hold)] = 90
    """Seconds without a word from a speaker after which its session ends."""
    graceful_restart: StrictBool = True
    """Whether routes stay while a speaker starts again (RFC 4724)."""
    announce: tuple[
        Literal["pods", "published", "cluster-ips", "external-ips", "load-balancers"], ...
    ] = ("pods", "published")
    """The node's pod CIDRs and further blocks; addresses of its pods outside of these; addresses of
    Services."""
    service_networks: tuple[Cidr, ...] = ()
    """Services' addresses are announced only if they are in one of these: who may write a Service
    may not draw other networks' packets here."""
    learn: tuple[Literal["pods", "fabric"], ...] = ()
    """Other nodes' pod CIDRs; routes to networks outside of the cluster, into the kernel."""
    pod_cidrs: tuple[Cidr, ...] = ()
    """This node's own, where BGP is the store."""

    @property
    def of_services(self) -> frozenset[str]:
        """What it announces of Services."""
        return OF_SERVICES & frozenset(self.announce)


def problem(
    bgp: Bgp | None,
    cluster: Cluster,
    *,
    is_store: bool,
    encap: str,
    has_resources: bool,
    has_services: bool,
) -> tuple[str, str]:
    """What only several keys together can violate: the key, and why; empty if all is right.
    `has_resources`: whether peers may be told elsewhere; `has_services`: whether Services are
    listed anywhere."""
    if bgp is None:
        needed = ("store", "BGP as the store takes the table [bgp], with asn and peers")
        return needed if is_store else ("", "")
    checks = (
        _wrong_peers(bgp),
        _wrong_mesh(bgp, has_resources=has_resources),
        _wrong_source(bgp, cluster, is_store=is_store, encap=encap),
        _wrong_services(bgp, cluster, has_services=has_services),
    )
    return next(filter(None, checks), ("", ""))


def _wrong_peers(bgp: Bgp) -> tuple[str, str] | None:
    times = Counter(peer.address for peer in bgp.peers)
    for number, peer in enumerate(bgp.peers):
        if times[peer.address] > 1:
            return "bgp.peers", f"{peer.address} is there {times[peer.address]} times"
        if peer.client and peer.asn != bgp.asn:
            why = f"client = true: the speaker {peer.address} is of another system ({peer.asn})"
            return f"bgp.peers.{number}", why
    return None


def _wrong_mesh(bgp: Bgp, *, has_resources: bool) -> tuple[str, str] | None:
    if bgp.reflectors and not bgp.mesh:
        return "bgp.reflectors", "reflectors are those of the mesh: set bgp.mesh = true"
    if not bgp.peers and not bgp.mesh and not has_resources:
        return "bgp", "there is nobody to speak to: add [[bgp.peers]], or set bgp.mesh = true"
    return None


def _wrong_services(bgp: Bgp, cluster: Cluster, *, has_services: bool) -> tuple[str, str] | None:
    key = "bgp.service_networks"
    for one in bgp.service_networks:
        if any(overlap(one, whole) for whole in cluster.cidrs):
            return key, f"{one} overlaps cluster_cidrs: no Service has an address of pods"
    if not bgp.of_services:
        if bgp.service_networks:
            return key, "service_networks: add 'cluster-ips' or others of Services to bgp.announce"
        return None
    kinds = ", ".join(sorted(bgp.of_services))
    if not bgp.service_networks:
        return (
            "bgp.announce",
            f"{kinds}: say in bgp.service_networks which networks these may be of",
        )
    if not has_services:
        return "bgp.announce", f"{kinds}: the store has no Services; set services_file"
    return None


def _wrong_source(
    bgp: Bgp, cluster: Cluster, *, is_store: bool, encap: str
) -> tuple[str, str] | None:
    if not is_store:
        if PODS in bgp.learn:
            why = "learn = ['pods']: the store tells where pods are; BGP does with store = 'bgp:'"
            return "bgp.learn", why
        if bgp.pod_cidrs:
            return "bgp.pod_cidrs", "pod_cidrs: the store gives nodes theirs; with 'bgp:' this does"
        return None
    if PODS not in bgp.learn:
        return "bgp.learn", "learn must have 'pods' with store = 'bgp:', or no node knows another"
    if bgp.mesh:
        return "bgp.mesh", "mesh = true: with store = 'bgp:' nobody lists nodes; add [[bgp.peers]]"
    if encap not in ("direct", "auto-direct"):
        why = f"encap = '{encap}': with store = 'bgp:' it must be 'direct', for BGP tells no more"
        return "encap", f"{why} than next hops"
    return _wrong_cidrs(bgp.pod_cidrs, cluster)


def _wrong_cidrs(cidrs: Collection[Cidr], cluster: Cluster) -> tuple[str, str] | None:
    by_family: Mapping[int, int] = Counter(cidr.version for cidr in cidrs)
    for whole in cluster.cidrs:
        length = cluster.node_prefix(whole.version)
        own = [cidr for cidr in cidrs if cidr.version == whole.version]
        is_right = (
            len(own) == 1 and own[0].prefixlen == length and (own[0].network_address in whole)
        )
        if not is_right or len(by_family) > len(cluster.cidrs):
            return "bgp.pod_cidrs", f"pod_cidrs must have one /{length} out of {whole}"
    return None
