# SPDX-License-Identifier: Apache-2.0
"""Routes. Sources: linux/rtnetlink.h; rtnetlink(7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
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
RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 2, 3, 4, 5, 6, 7
RTA_METRICS, RTA_MULTIPATH, RTA_TABLE, RTA_VIA, RTA_NH_ID = 8, 9, 15, 18, 30
RTAX_LOCK, RTAX_MTU, RTAX_ADVMSS = 1, 2, 8
RTVIA = struct.Struct("=H")
"""The start of struct rtvia: a family. An address of it follows."""
RTNEXTHOP = struct.Struct("=HBBi")
"""struct rtnexthop: length with its attributes, flags, weight, index of the link."""
RT_TABLE_UNSPEC, RT_TABLE_MAIN, RT_TABLE_LOCAL = 0, 254, 255
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST = 0, 253, 254
RTPROT_KERNEL, RTPROT_STATIC, RTN_UNICAST, RTN_LOCAL = 2, 4, 1, 2
RTNH_F_DEAD, RTNH_F_ONLINK, RTNH_F_LINKDOWN = 0x1, 0x4, 0x10
RTM_F_CLONED = 0x200
"""Of a copy that the kernel made for one destination."""

ANYWHERE: dict[int, IPNetwork] = {
    FAMILIES[4]: ip_network("0.0.0.0/0"),
    FAMILIES[6]: ip_network("::/0"),
}
"""The destination of a default route, by address family."""


class Hop(NamedTuple):
    """One of the ways that a route has."""

    ifindex: int
    gateway: IPAddress | None = None
    """None: the destination is on the link."""
    is_dead: bool = False
    """The kernel does not send this way: the link is down or has no carrier."""


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
    kind: int = RTN_UNICAST
    """RTN_*: what becomes of the packets."""
    hops: tuple[Hop, ...] = ()
    """All ways, of a route that was read: one or more, or none if it leads nowhere."""
    nexthop_id: int = 0
    """Of the nexthop object (ip-nexthop(8)) that has the ways; 0: the route has its own."""

    def with_hops(self, hops: tuple[Hop, ...]) -> Route:
        """The same route with these ways."""
        one = hops[0] if len(hops) == 1 else Hop(0)
        return self._replace(ifindex=one.ifindex, gateway=one.gateway, hops=hops)


def local_route(address: IPAddress, ifindex: int) -> Route:
    """The route that the kernel makes for an address of an interface, so that it is the host's."""
    is_ip4 = address.version == 4
    return Route(
        ip_network(address),
        ifindex,
        source=address if is_ip4 else None,
        table=RT_TABLE_LOCAL,
        scope=RT_SCOPE_HOST if is_ip4 else RT_SCOPE_UNIVERSE,
        kind=RTN_LOCAL,
    )


def read_route(body: bytes) -> Route | None:
    """The route that an RTM_NEWROUTE or RTM_DELROUTE is about. Raises ValueError if it is garbled.

    None for what is no IP route.
    """
    family, bits, _, _, table, _, scope, kind, flags = RTMSG.unpack_from(body)
    if family not in ANYWHERE:
        return None
    found = dict(attributes(body, RTMSG.size))
    hops = tuple(_read_hops(found, flags))
    metrics = dict(attributes(found.get(RTA_METRICS, b"")))
    dst = ip_network((found[RTA_DST], bits)) if RTA_DST in found else ANYWHERE[family]
    route = Route(
        dst=dst,
        ifindex=0,
        source=read_address(found[RTA_PREFSRC]) if RTA_PREFSRC in found else None,
        table=_number(found, RTA_TABLE) or table,
        scope=scope,
        priority=_number(found, RTA_PRIORITY),
        mtu=_number(metrics, RTAX_MTU),
        advmss=_number(metrics, RTAX_ADVMSS),
        kind=kind,
        nexthop_id=_number(found, RTA_NH_ID),
    )
    return route.with_hops(hops)


def is_copy(body: bytes) -> bool:
    """Whether a message is about a copy of a route that the kernel made for one destination."""
    return bool(RTMSG.unpack_from(body)[8] & RTM_F_CLONED)


def pack_route_listing() -> bytes:
    """An RTM_GETROUTE for all routes of all tables."""
    return RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)


def read_gateway(found: dict[int, bytes]) -> IPAddress | None:
    """The gateway that the attributes of a route or of one of its ways name."""
    if RTA_GATEWAY in found:
        return read_address(found[RTA_GATEWAY])
    if RTA_VIA in found:
        return read_address(found[RTA_VIA][RTVIA.size :])
    return None


def _read_hops(found: dict[int, bytes], flags: int) -> Iterator[Hop]:
    if RTA_MULTIPATH in found:
        yield from _read_multipath(found[RTA_MULTIPATH])
    elif RTA_OIF in found:
        dead = bool(flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN))
        yield Hop(read_number(found[RTA_OIF]), read_gateway(found), dead)


def _read_multipath(data: bytes) -> Iterator[Hop]:
    at = 0
    while at < len(data):
        if len(data) - at < RTNEXTHOP.size:
            raise ValueError(f"a way of a route in {len(data) - at} bytes")
        length, flags, _, ifindex = RTNEXTHOP.unpack_from(data, at)
        if not RTNEXTHOP.size <= length <= len(data) - at:
            raise ValueError(f"a way of a route of {length} bytes in {len(data) - at}")
        found = dict(attributes(data[at + RTNEXTHOP.size : at + length]))
        dead = bool(flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN))
        yield Hop(ifindex, read_gateway(found), dead)
        at += length + 3 & ~3


def _number(found: dict[int, bytes], kind: int) -> int:
    """The value of a 32-bit attribute; 0 if there is none."""
    return read_number(found[kind]) if kind in found else 0


def pack_route(route: Route) -> bytes:
    """An RTM_NEWROUTE or RTM_DELROUTE."""
    flags = 0 if route.gateway is None else RTNH_F_ONLINK
    body = RTMSG.pack(
        FAMILIES[route.dst.version], route.dst.prefixlen, 0, 0, RT_TABLE_UNSPEC,
        RTPROT_KERNEL if route.kind == RTN_LOCAL else RTPROT_STATIC, route.scope, route.kind, flags,
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


def pack_route_question(
    address: IPAddress, *, source: IPAddress | None = None, by: int = 0
) -> bytes:
    """An RTM_GETROUTE for the way that the kernel would send a packet of the node; or one of
    `source`, that came by the interface with the index `by`."""
    bits = address.max_prefixlen
    question = RTMSG.pack(FAMILIES[address.version], bits, bits if source else 0, *[0] * 6)
    question += attribute(RTA_DST, address.packed)
    if source is not None:
        question += attribute(RTA_SRC, source.packed)
    return question + number(RTA_IIF, by) if by else question


def _pack_gateway(gateway: IPAddress, *, version: int) -> bytes:
    """An IPv4 route may lead to an IPv6 gateway (RFC 8950); the kernel refuses the reverse."""
    if gateway.version == version:
        return attribute(RTA_GATEWAY, gateway.packed)
    return attribute(RTA_VIA, RTVIA.pack(FAMILIES[gateway.version]) + gateway.packed)
