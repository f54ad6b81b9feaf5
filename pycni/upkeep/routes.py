# SPDX-License-Identifier: Apache-2.0
"""Part "routes": the cluster's networks lead to the overlay device, and pods' packets out of the
node wherever its own do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import islice

from pycni.cluster import IPAddress, IPNetwork, gateway, overlap
from pycni.faults import Fault, Weight
from pycni.kernel import sysctl
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.routes import RT_TABLE_LOCAL, RT_TABLE_MAIN, RTN_LOCAL, RTN_UNICAST, Route
from pycni.node import overlay
from pycni.node.overlay import DEVICE
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "routes"
FORWARDING = f"net/ipv4/conf/{DEVICE}/forwarding"

WORLD: dict[int, IPAddress] = {4: IPv4Address("203.0.113.1"), 6: IPv6Address("2001:db8::1")}
"""Addresses that nobody has, of all the world: for documentation (RFC 5737, RFC 3849)."""


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Routes of others by the device are no fault, but what overrules ours is."""
    missing = _missing(d, seen)
    for route in missing:
        todo = overlay.todo_of(route.dst.version)
        yield Fault(PART, f"the route to {route.dst} by {DEVICE}", "gone", todo)
    if not missing:
        yield from _overruled(d, seen)
        yield from _kept_in(d, seen)


def mend(d: Description, seen: Seen) -> None:
    """Add what is missing."""
    for route in _missing(d, seen):
        if not overlay.todo_of(route.dst.version):
            seen.ipr.replace_route(route)


def _overruled(d: Description, seen: Seen) -> Iterator[Fault]:
    """Rules and routes of others that lead packets for pods somewhere else: those to the pods of
    this node, and routes to a part of the cluster."""
    link = seen.link(DEVICE)
    if link is None or not link.is_up:
        return
    for cidr in d.node.pod_cidrs:
        pod = gateway(cidr) + 1
        found = seen.ipr.route_to(pod)
        if found is None or found.ifindex != link.ifindex:
            todo = f"see what leads it there: ip rule (one must look up main); ip route get {pod}"
            yield _astray(cidr, found, seen, todo=todo)
    for to in _selected(d, seen):
        found = seen.ipr.route_to(_some_pod(to, d))
        if found is None or found.ifindex != link.ifindex:
            todo = f"see who made the rule, and remove it: ip rule show to {to}"
            yield _astray(to, found, seen, todo=todo)
    for route in seen.routes:
        if _is_inside(route, d) and all(hop.ifindex != link.ifindex for hop in route.hops):
            table = " table local" if route.table == RT_TABLE_LOCAL else ""
            todo = f"see who made the route, and remove it: ip route show root {route.dst}{table}"
            if route.kind == RTN_LOCAL:
                todo = f"remove the address: ip address show to {route.dst}"
            yield _astray(route.dst, route, seen, todo=todo)


def _kept_in(d: Description, seen: Seen) -> Iterator[Fault]:
    """Rules of others that stop packets by where they come from, or by the interface."""
    link = seen.link(DEVICE)
    if link is None or not link.is_up:
        return
    for cidr in d.node.pod_cidrs:
        pod: IPAddress = gateway(cidr) + 1
        world = WORLD[cidr.version]
        if not _leads(seen.ipr.route_to(world)):
            continue  # this node has no way either
        if cidr.version == 4 and sysctl.read(FORWARDING) == "0":
            continue  # nothing is led on then (ip_route_input_slow); sysctls.py says so
        if not _leads(seen.ipr.route_to(world, source=pod, by=link.ifindex)):
            yield Fault(
                PART,
                f"the way of packets of {cidr} out of this node",
                "nowhere, though this node itself has one",
                "see which rule stops them, or leads to a table without a route: ip rule; "
                f"ip route get {world} from {pod} iif {DEVICE}",
                Weight.DEGRADED,
            )


def _leads(route: Route | None) -> bool:
    return route is not None and route.kind == RTN_UNICAST


def _selected(d: Description, seen: Seen) -> Iterator[IPNetwork]:
    """Networks of pods whose packets a rule selects by where they go."""
    for version in sorted({cidr.version for cidr in d.node.cluster_cidrs}):
        clusters = [cidr for cidr in d.node.cluster_cidrs if cidr.version == version]
        for to in _destinations(seen, version):
            yield from (max(to, cidr, key=_length) for cidr in clusters if overlap(cidr, to))


def _destinations(seen: Seen, version: int) -> list[IPNetwork]:
    try:
        return list(dict.fromkeys(seen.ipr.rule_destinations(version)))
    except NetlinkError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return []


def _length(network: IPNetwork) -> int:
    return network.prefixlen


def _some_pod(network: IPNetwork, d: Description) -> IPAddress:
    """An address of the network that is not the host's, if there is one."""
    candidates: list[IPAddress] = list(islice(network.hosts(), len(d.node.gateways) + 1))
    return next((one for one in candidates if one not in d.node.gateways), candidates[0])


def _is_inside(route: Route, d: Description) -> bool:
    """Whether a route is to a part of the cluster, so that it goes before ours. An address of the
    host makes one in the local table, and beside it some of other kinds, for broadcasts."""
    is_local = route.table == RT_TABLE_LOCAL and (route.kind == RTN_LOCAL or not route.hops)
    return (is_local or route.table == RT_TABLE_MAIN) and any(
        cidr.version == route.dst.version
        and cidr.prefixlen < route.dst.prefixlen
        and route.dst.network_address in cidr
        for cidr in d.node.cluster_cidrs
    )


def _astray(to: IPNetwork, route: Route | None, seen: Seen, *, todo: str) -> Fault:
    way = seen.ipr.link_at(route.ifindex) if route is not None and route.ifindex else None
    where = f"out of {way.ifname}" if way is not None else "nowhere"
    if way is not None and route is not None and route.kind == RTN_LOCAL:
        where = f"to this host, which has it as an address of {way.ifname}"
    return Fault(PART, f"the way of packets to {to}", f"{where}, not {DEVICE}", todo)


def _missing(d: Description, seen: Seen) -> list[Route]:
    link = seen.link(DEVICE)
    if link is None:
        return []
    wanted = d.routes(link.ifindex)
    have = {
        (route.dst, route.gateway, route.source)
        for version in {route.dst.version for route in wanted}
        for route in seen.ipr.routes_by(link.ifindex, version)
    }
    return [route for route in wanted if (route.dst, route.gateway, route.source) not in have]
