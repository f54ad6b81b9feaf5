# SPDX-License-Identifier: Apache-2.0
"""The underlay: the interfaces, addresses and routes of a node that are not pycni's.

`look` reads them once; all questions about them are pure. Two kinds of interfaces matter:

* outer ones: packets of other machines come in there. Not those that are ports of a bridge or a
  bond, whose packets come in on that; not loopback and dummies, which lead nowhere.
* those that only hold addresses, loopback and dummies. With BGP on the host, the node's address is
  there, and routes lead to it by any interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pycni.cluster import IPAddress, IPNetwork, is_routable
from pycni.kernel.addresses import Address
from pycni.kernel.links import Link
from pycni.kernel.routes import RT_TABLE_MAIN, RTN_UNICAST, Hop, Route
from pycni.kernel.rtnl import Rtnl
from pycni.names import ALIAS_HEAD, NODE_ALIAS_HEAD
from pycni.node import overlay
from pycni.stores.records import ADDRESSES_MAX

VRF = "vrf"
"""The kind of master whose ports receive packets themselves."""


@dataclass(frozen=True)
class Underlay:
    """What the kernel said at one moment."""

    links: Mapping[int, Link]
    """By index."""
    addresses: tuple[Address, ...]
    """In the kernel's order."""
    routes: tuple[Route, ...]
    """Those of the main table that lead somewhere."""

    def link(self, ifname: str) -> Link | None:
        """The interface of that name, or None."""
        return next((link for link in self.links.values() if link.ifname == ifname), None)

    def holder(self, address: IPAddress) -> Link | None:
        """The interface that has an address, or None."""
        for one in self.addresses:
            if one.ip == address and one.ifindex in self.links:
                return self.links[one.ifindex]
        return None

    def held(self, address: IPAddress) -> Address | None:
        """An address as an interface has it, or None."""
        return next((one for one in self.addresses if one.ip == address), None)

    @property
    def outer(self) -> tuple[Link, ...]:
        """The outer interfaces that have an address, or a route to more than one host."""
        used = {one.ifindex for one in self.addresses if one.is_global}
        used |= {hop.ifindex for route in self.routes for hop in route.hops if _is_wide(route, hop)}
        return tuple(self.links[index] for index in sorted(used) if self._is_outer(index))

    def leads_on(self, ifindex: int, routes: Iterable[Route]) -> bool:
        """Whether an interface is an outer one by these routes, which may be of other tables."""
        hops = ((route, hop) for route in routes for hop in route.hops if hop.ifindex == ifindex)
        return self._is_outer(ifindex) and any(_is_wide(route, hop) for route, hop in hops)

    def own_addresses(self, clusters: Iterable[IPNetwork], first: IPAddress) -> list[IPAddress]:
        """The addresses at which other nodes reach this one, `first` (its VTEP) before the others.

        Not those that may not stay, those of interfaces that are down, and those in `clusters`.
        """
        cidrs = tuple(clusters)
        found = [
            one
            for one in self.addresses
            if one.is_global
            and one.is_stable
            and is_routable(one.ip)
            and one.ifindex in self.links
            and self.links[one.ifindex].is_up
            and not any(one.ip in cidr for cidr in cidrs)
        ]
        found.sort(key=lambda one: (one.ip != first, one.is_single, one.ip.version, one.ip.packed))
        return list(dict.fromkeys([first, *(one.ip for one in found)]))[:ADDRESSES_MAX]

    def default_routes(self, version: int) -> list[Route]:
        """The default routes of an IP version, the one that the kernel takes first."""
        routes = (route for route in self.routes if not route.dst.prefixlen)
        ours = (route for route in routes if route.dst.version == version)
        return sorted(ours, key=lambda route: route.priority)

    def ways(self, *addresses: IPAddress) -> tuple[Link, ...]:
        """The interfaces by which packets to addresses may leave, as the main table says."""
        routes = {id(route): route for route in map(self._route, addresses) if route is not None}
        links = (link for route in routes.values() for link in self.links_of(route))
        return tuple(dict.fromkeys(links))

    def _route(self, address: IPAddress) -> Route | None:
        """The one that the kernel takes to an address."""
        number = int(address)
        for shift, routes in self._tables[address.version]:
            route = routes.get(number >> shift)
            if route is not None:
                return route
        return None

    def links_of(self, route: Route) -> tuple[Link, ...]:
        """The interfaces of a route's ways that work; of all ways, if none works."""
        hops = [hop for hop in route.hops if not hop.is_dead] or route.hops
        links = (self.links.get(hop.ifindex) for hop in hops)
        return tuple(dict.fromkeys(link for link in links if link is not None))

    @cached_property
    def _tables(self) -> dict[int, list[tuple[int, dict[int, Route]]]]:
        """By IP version, for each length of prefixes, the longest first: the bits of an address
        that do not matter, and by those that do the route that the kernel takes."""
        found: dict[int, dict[int, dict[int, Route]]] = {4: {}, 6: {}}
        for route in self.routes:
            shift = route.dst.max_prefixlen - route.dst.prefixlen
            routes = found[route.dst.version].setdefault(shift, {})
            bits = int(route.dst.network_address) >> shift
            if bits not in routes or route.priority < routes[bits].priority:
                routes[bits] = route
        return {version: sorted(tables.items()) for version, tables in found.items()}

    def _is_outer(self, index: int) -> bool:
        link = self.links.get(index)
        return link is not None and not link.is_inside and not self._is_port(link)

    def _is_port(self, link: Link) -> bool:
        master = self.links.get(link.master)
        return bool(link.master) and (master is None or master.kind != VRF)


def look(
    ipr: Rtnl, *, links: Iterable[Link] | None = None, routes: Iterable[Route] | None = None
) -> Underlay:
    """Ask the kernel, for all `links` and `routes` if they are not known. Raises NetlinkError."""
    listed = ipr.links() if links is None else links
    outside = {link.ifindex: link for link in listed if not _is_ours(link)}
    return Underlay(
        outside,
        tuple(one for one in ipr.addresses() if one.ifindex in outside),
        tuple(
            route
            for route in (ipr.routes() if routes is None else routes)
            if _leads_out(route, outside)
        ),
    )


def _is_wide(route: Route, hop: Hop) -> bool:
    """Whether more than one host is that way. Each interface has a route to link-local ones."""
    if route.dst.is_link_local:
        return False
    return hop.gateway is not None or route.dst.prefixlen < route.dst.max_prefixlen


def _is_ours(link: Link) -> bool:
    return link.ifname == overlay.DEVICE or link.alias.startswith((ALIAS_HEAD, NODE_ALIAS_HEAD))


def _leads_out(route: Route, links: Mapping[int, Link]) -> bool:
    if route.table != RT_TABLE_MAIN or route.kind != RTN_UNICAST:
        return False
    return any(hop.ifindex in links for hop in route.hops)
