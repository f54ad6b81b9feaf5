# SPDX-License-Identifier: Apache-2.0
"""Other nodes by what BGP says: pod CIDRs by next hop, and what cannot be believed. Pure.

A next hop is as good as a node: packets to all that is behind it leave with its MAC, and are taken
from it (docs/direct.md). It is the other node itself, or a router. Filters of BIRD have let in no
other networks than pod CIDRs of the cluster; here that is checked once more, since what is written
into the maps depends on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from pycni.bgp.answers import Route
from pycni.bgp.config import MARK
from pycni.bgp.neighbours import mark
from pycni.cluster import Cluster, IPAddress, IPNetwork, is_routable, overlap
from pycni.node.record import Node
from pycni.stores import DIRECT, ROUTED, NodeRecord

ACCEPTS = (DIRECT, ROUTED)
"""A next hop takes packets as they are, also behind another router."""
NOBODY = ""
"""In the place of an announcer's mark, of networks without one."""


@dataclass(frozen=True)
class Problem:
    """Something that was announced and is wrong."""

    thing: str
    found: str
    """Completes the sentence "THING is"."""


@dataclass(frozen=True)
class Learned:
    """What BIRD's tables say about other nodes."""

    behind: Mapping[IPNetwork, IPAddress]
    """Next hops by pod CIDR."""
    problems: tuple[Problem, ...]


def learn(routes: Iterable[Route], node: Node, cluster: Cluster, *, asn: int) -> Learned:
    """What is behind the next hops of the best routes. `node` is this node, `asn` its system."""
    by_prefix: dict[IPNetwork, list[Route]] = {}
    for route in routes:
        if route.next_hop is not None:
            by_prefix.setdefault(route.prefix, []).append(route)
    behind: dict[IPNetwork, IPAddress] = {}
    problems: list[Problem] = []
    own = str(mark(node.name, node.vtep))
    for prefix, found in sorted(by_prefix.items(), key=lambda item: str(item[0])):
        if any(overlap(prefix, one) for one in node.networks):
            problems += _claimed(prefix, [one for one in found if announcer(one, asn) != own])
        elif _is_pod_cidr(prefix, cluster):
            problems += _shared(prefix, found, asn)
            best = next((one for one in found if one.is_best), found[0])
            if why := _unusable(best.next_hop, node, cluster):
                problems.append(Problem(f"the route to {prefix}", f"not used: {why}"))
            elif best.next_hop is not None:
                behind[prefix] = best.next_hop
    return Learned(behind, tuple(problems))


def records(behind: Mapping[IPNetwork, IPAddress]) -> tuple[NodeRecord, ...]:
    """One for each next hop."""
    networks: dict[IPAddress, list[IPNetwork]] = {}
    for prefix, next_hop in behind.items():
        networks.setdefault(next_hop, []).append(prefix)
    return tuple(_record(next_hop, found) for next_hop, found in networks.items())


def behind_of(nodes: Iterable[NodeRecord]) -> dict[IPNetwork, IPAddress]:
    """The undo of `records`."""
    return {network: node.vtep for node in nodes for network in node.networks}


def announcer(route: Route, asn: int) -> str:
    """The mark of the node that announces a route; NOBODY if it has none."""
    head = f"{asn}:{MARK}:"
    marks = [one.removeprefix(head) for one in route.communities if one.startswith(head)]
    return marks[0] if marks else NOBODY


def _claimed(prefix: IPNetwork, others: Sequence[Route]) -> list[Problem]:
    if not others:
        return []
    found = f"announced by another, too, at {others[0].next_hop} (session {others[0].protocol})"
    return [Problem(f"this node's network {prefix}", found)]


def _shared(prefix: IPNetwork, found: Sequence[Route], asn: int) -> list[Problem]:
    by_mark: Mapping[str, Route] = {announcer(one, asn): one for one in found}
    if len(by_mark) < 2:
        return []
    where = " and ".join(sorted(f"{one.next_hop} ({one.protocol})" for one in by_mark.values()))
    return [Problem(f"the network {prefix}", f"announced by {len(by_mark)} nodes, at {where}")]


def _is_pod_cidr(prefix: IPNetwork, cluster: Cluster) -> bool:
    return prefix.prefixlen == cluster.node_prefix(prefix.version) and any(
        overlap(prefix, whole) for whole in cluster.cidrs
    )


def _unusable(next_hop: IPAddress | None, node: Node, cluster: Cluster) -> str:
    """Why nobody can send to a next hop; empty if one can."""
    if next_hop is None or not is_routable(next_hop):
        return f"its next hop {next_hop} is no address that this node can send to"
    if next_hop.version != node.vtep.version:
        return f"its next hop {next_hop} is of another IP version than this node's VTEP {node.vtep}"
    if next_hop == node.vtep:
        return f"its next hop {next_hop} is this node"
    if any(next_hop.version == one.version and next_hop in one for one in cluster.cidrs):
        return f"its next hop {next_hop} is an address of the pods"
    return ""


def _record(next_hop: IPAddress, networks: Iterable[IPNetwork]) -> NodeRecord:
    ordered = sorted(networks, key=lambda one: (one.version, int(one.network_address)))
    first = {one.version: one for one in reversed(ordered)}
    pod_cidrs = tuple(first[version] for version in sorted(first))
    blocks = tuple(one for one in ordered if one not in pod_cidrs)
    name = f"bgp-{next_hop.exploded}".replace(".", "-").replace(":", "-")
    return NodeRecord(name, _number(next_hop), next_hop, pod_cidrs, blocks=blocks, accepts=ACCEPTS)


def _number(next_hop: IPAddress) -> int:
    """The id of a next hop, from 1 on, where nobody gives any."""
    if isinstance(next_hop, IPv4Address):
        return int(next_hop)
    return int.from_bytes(hashlib.sha256(next_hop.packed).digest()[:4], "big") or 1
