# SPDX-License-Identifier: Apache-2.0
"""Routes, and rules that choose a routing table. Sources: linux/rtnetlink.h; rtnetlink(7)."""

from __future__ import annotations

import struct
from ipaddress import ip_network
from typing import NamedTuple

from pycni.cluster import IPAddress, IPNetwork
from pycni.kernel.netlink import (
    FAMILIES,
    attribute,
    attributes,
    nested,
    number,
    read_address,
    read_number,
)

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

RTMSG = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type,
flags."""
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 2, 4, 5, 6, 7
RTA_METRICS, RTA_TABLE, RTA_VIA = 8, 15, 18
RTAX_LOCK, RTAX_MTU, RTAX_ADVMSS = 1, 2, 8
RTVIA = struct.Struct("=H")
"""The start of struct rtvia: a family. An address of it follows."""
RT_TABLE_UNSPEC, RT_TABLE_MAIN, RT_TABLE_LOCAL = 0, 254, 255
RT_SCOPE_UNIVERSE, RTPROT_STATIC, RTN_UNICAST, RTNH_F_ONLINK = 0, 4, 1, 4


class Route(NamedTuple):
    """A route by an interface. 0 and None: not given, the kernel has its own default."""

    dst: IPNetwork
    ifindex: int
    """0: of a route that has no interface, or several."""
    gateway: IPAddress | None = None
    """Taken to be on the link, whatever the other routes say ("onlink", ip-route(8))."""
    source: IPAddress | None = None
    """The address that the node sends from."""
    table: int = RT_TABLE_MAIN
    scope: int = RT_SCOPE_UNIVERSE
    priority: int = 0
    mtu: int = 0
    """Bytes."""
    advmss: int = 0
    """Bytes of a TCP segment that are offered to the other side."""
    mtu_locked: bool = False
    """The MTU holds whatever the kernel learns of the path. An IPv6 route's counts for forwarded
    packets only then (ip6_dst_mtu_maybe_forward, net/ip6_route.h); an IPv4 route's always."""


class Rule(NamedTuple):
    """A rule that packets from `source` look up `table`; ip-rule(8)."""

    source: IPAddress
    priority: int
    table: int = 0
    """0 in a rule that is to be deleted: any."""


class DeadEnd(NamedTuple):
    """A rule that packets with a mark have no route: the kernel answers them with an ICMP error."""

    version: int
    """Of IP."""
    mark: int
    """The whole of skb->mark."""
    priority: int


def pack_route(route: Route) -> bytes:
    """An RTM_NEWROUTE or RTM_DELROUTE."""
    flags = 0 if route.gateway is None else RTNH_F_ONLINK
    body = RTMSG.pack(
        FAMILIES[route.dst.version], route.dst.prefixlen, 0, 0, RT_TABLE_UNSPEC, RTPROT_STATIC,
        route.scope, RTN_UNICAST, flags,
    ) + number(RTA_TABLE, route.table)  # fmt: skip
    if route.dst.prefixlen:
        body += attribute(RTA_DST, route.dst.network_address.packed)
    body += number(RTA_OIF, route.ifindex)
    if route.gateway is not None:
        body += _pack_gateway(route.gateway, version=route.dst.version)
    if route.source is not None:
        body += attribute(RTA_PREFSRC, route.source.packed)
    if route.priority:
        body += number(RTA_PRIORITY, route.priority)
    lock = 1 << RTAX_MTU if route.mtu_locked else 0
    metrics = ((RTAX_LOCK, lock), (RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss))
    if any(value for _, value in metrics):
        body += nested(RTA_METRICS, *(number(kind, value) for kind, value in metrics if value))
    return body


def pack_routes_question(ifindex: int, version: int) -> bytes:
    """An RTM_GETROUTE for the routes of the main table by a link. The kernel filters them if the
    socket asks strictly (NETLINK_GET_STRICT_CHK, Linux 4.20)."""
    head = RTMSG.pack(FAMILIES[version], 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0)
    return head + number(RTA_TABLE, RT_TABLE_MAIN) + number(RTA_OIF, ifindex)


def pack_route_question(address: IPAddress) -> bytes:
    """An RTM_GETROUTE for the way that the kernel would send a packet of the node."""
    bits = address.max_prefixlen
    head = RTMSG.pack(FAMILIES[address.version], bits, 0, 0, 0, 0, 0, 0, 0)
    return head + attribute(RTA_DST, address.packed)


def read_route(body: bytes) -> Route:
    """The route that an RTM_NEWROUTE or RTM_DELROUTE is about, without its metrics.

    Raises ValueError if garbled.
    """
    family, length, _, _, table, _, scope, _, _ = RTMSG.unpack_from(body)
    found = dict(attributes(body, RTMSG.size))
    bits = next(version for version, number in FAMILIES.items() if number == family)
    dst = found.get(RTA_DST, bytes(4 if bits == 4 else 16))
    gateway, source = found.get(RTA_GATEWAY), found.get(RTA_PREFSRC)
    return Route(
        ip_network((read_address(dst), length)),
        read_number(found[RTA_OIF]) if RTA_OIF in found else 0,
        read_address(gateway) if gateway else None,
        read_address(source) if source else None,
        read_number(found[RTA_TABLE]) if RTA_TABLE in found else table,
        scope,
        read_number(found[RTA_PRIORITY]) if RTA_PRIORITY in found else 0,
    )


def _pack_gateway(gateway: IPAddress, *, version: int) -> bytes:
    """An IPv4 route may lead to an IPv6 gateway (RFC 8950); the kernel refuses the reverse."""
    if gateway.version == version:
        return attribute(RTA_GATEWAY, gateway.packed)
    return attribute(RTA_VIA, RTVIA.pack(FAMILIES[gateway.version]) + gateway.packed)
