# SPDX-License-Identifier: Apache-2.0
"""The uplink: the node's interface to the other nodes, and the address at which they reach it.

`choose` decides from what the kernel says (underlay.py), the settings, and the VTEP that the other
nodes know; it is pure. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pycni.cluster import IPAddress, is_routable
from pycni.errors import SetupError
from pycni.kernel.addresses import Address
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.node import underlay
from pycni.node.record import Node
from pycni.node.underlay import Underlay
from pycni.settings import Settings


@dataclass(frozen=True)
class Wish:
    """What the settings name, and what the other nodes know."""

    ifname: str = ""
    """The setting `uplink`."""
    vtep: IPAddress | None = None
    """The setting `vtep`."""
    registered: IPAddress | None = None
    """The VTEP at which the other nodes know this one; None for a new node."""

    @classmethod
    def of(cls, settings: Settings, before: Node | None) -> Wish:
        """What the settings and the record of an earlier setup say."""
        return cls(settings.uplink, settings.vtep, None if before is None else before.vtep)


@dataclass(frozen=True)
class Uplink:
    """The interface by which VXLAN leaves, the first of them if there are several.

    `vtep` is this node's address. `mtu` is the largest IP packet in bytes that each interface takes
    by which packets to other nodes may leave.
    """

    ifname: str
    ifindex: int
    mtu: int
    vtep: IPAddress


def find(ipr: Rtnl, wish: Wish, *, others: Iterable[IPAddress] = ()) -> Uplink:
    """`choose` with what the kernel says now."""
    return choose(underlay.look(ipr), wish, others=others)


def choose(around: Underlay, wish: Wish, *, others: Iterable[IPAddress] = ()) -> Uplink:
    """Address and interface, in this order of precedence:

    * The address is the setting `vtep`; or the registered one as long as it is there; or the best
      of the interface `uplink`; or of the interface of the default route.
    * The interface is the setting `uplink`; or the one that has the address; or, if that one leads
      nowhere (loopback, a dummy), the first by which packets to `others` or to the world leave.

    `others` are the VTEPs of the other nodes. Raises SetupError if there is no such interface or
    address.
    """
    named = None if not wish.ifname else _named(around, wish.ifname)
    vtep = _vtep(around, wish, named)
    ways = _ways(around, vtep, others)
    holder = around.holder(vtep)
    link = named or (holder if holder and not holder.is_inside else next(iter(ways), None))
    if link is None:
        raise SetupError(
            f"no route tells by which interface packets from {vtep} leave this node",
            hint="add a route to the other nodes, or name the interface as `uplink` in the "
            "settings",
        )
    mtu = min(one.mtu for one in (link, *ways))
    return Uplink(link.ifname, link.ifindex, mtu, vtep)


def _named(around: Underlay, ifname: str) -> Link:
    link = around.link(ifname)
    if link is None:
        raise SetupError(
            f"this node has no interface {ifname}",
            hint="correct `uplink` in the settings; `ip link` lists the interfaces",
        )
    return link


def _vtep(around: Underlay, wish: Wish, named: Link | None) -> IPAddress:
    if wish.vtep is not None:
        return _configured(around, wish.vtep, named)
    if _stays(around, wish.registered, named):
        assert wish.registered is not None
        return wish.registered
    found = _candidates(around, named) if named is not None else _of_default_routes(around)
    if wish.registered is not None:  # the other nodes have addresses of this IP version
        version = wish.registered.version
        found.sort(key=lambda one: one.ip.version != version)
    if not found:
        link = named or next(_default_links(around))
        raise SetupError(
            f"the uplink {link.ifname} has no global address that can be the VTEP",
            details=_unfit(around, link),
            hint="give it one, or name another interface as `uplink` in the settings",
        )
    return found[0].ip


def _configured(around: Underlay, vtep: IPAddress, named: Link | None) -> IPAddress:
    """The setting `vtep`, which a named uplink must have, or an interface that leads nowhere."""
    address, holder = around.held(vtep), around.holder(vtep)
    if address is None or holder is None:
        raise SetupError(
            f"no interface of this node has the address {vtep}",
            hint="correct `vtep` in the settings; `ip address` lists the addresses",
        )
    if named is not None and holder != named and not holder.is_inside:
        addresses = [str(one.ip) for one in around.addresses if one.ifindex == named.ifindex]
        raise SetupError(
            f"{vtep} is not an address of the uplink {named.ifname}",
            details=f"it is one of {holder.ifname}; {named.ifname} has "
            + (", ".join(addresses) or "none"),
            hint="correct `vtep` or `uplink` in the settings",
        )
    if not address.is_usable:
        raise SetupError(
            f"{vtep} of {holder.ifname} cannot be used: {_why_not(address)}",
            hint="wait until it is settled, or find the machine that has it, too",
        )
    return vtep


def _stays(around: Underlay, registered: IPAddress | None, named: Link | None) -> bool:
    """Whether the address that the other nodes know can be kept."""
    if registered is None:
        return False
    address, holder = around.held(registered), around.holder(registered)
    if address is None or holder is None or address.is_duplicate:
        return False
    return named is None or holder == named or holder.is_inside


def _of_default_routes(around: Underlay) -> list[Address]:
    """The addresses from which the node sends to the world, those of IPv4 first."""
    routes = [route for version in (4, 6) for route in around.default_routes(version)]
    if not routes:
        raise SetupError(
            "this node has no default route, so its uplink is unknown",
            hint="name the interface as `uplink` in the settings",
        )
    found: list[Address] = []
    for route in routes:
        source = None if route.source is None else around.held(route.source)
        if source is not None and _is_fit(source):
            found.append(source)
        found += [one for link in around.links_of(route) for one in _candidates(around, link)]
    return found


def _default_links(around: Underlay) -> Iterator[Link]:
    """The interfaces of the default routes, those of IPv4 first."""
    for version in (4, 6):
        for route in around.default_routes(version):
            yield from around.links_of(route)


def _candidates(around: Underlay, link: Link) -> list[Address]:
    """The addresses of an interface that can be the VTEP, the best first; if it has none, as with
    BGP on the host, those of interfaces that lead nowhere.

    IPv4 comes before IPv6, and an address in a network before a single one, which may be a virtual
    address that moves between machines. Then it is the kernel's order: it sends from the first.
    """
    fit = [one for one in around.addresses if _is_fit(one)]
    own = [one for one in fit if one.ifindex == link.ifindex]
    inside = [one for one in fit if around.links[one.ifindex].is_inside]
    return sorted(own or inside, key=lambda one: (one.ip.version, one.is_single, one.is_secondary))


def _is_fit(address: Address) -> bool:
    return address.is_global and address.is_stable and is_routable(address.ip)


def _unfit(around: Underlay, link: Link) -> str:
    found = [one for one in around.addresses if one.ifindex == link.ifindex and one.is_global]
    return ", ".join(f"{one.ip} is {_why_not(one)}" for one in found)


def _why_not(address: Address) -> str:
    if address.is_duplicate:
        return "taken by another machine (duplicate address detection failed)"
    if not address.is_usable:
        return "tentative: duplicate address detection has not ended"
    return "deprecated or temporary" if not address.is_stable else "not reachable for others"


def _ways(around: Underlay, vtep: IPAddress, others: Iterable[IPAddress]) -> tuple[Link, ...]:
    """The interfaces by which packets to other nodes may leave; to the world, if none is known."""
    found = [link for link in around.ways(*others) if not link.is_inside]
    holder = around.holder(vtep)
    if found or (holder is not None and not holder.is_inside):
        return tuple(found)
    routes = around.default_routes(vtep.version) or around.default_routes(10 - vtep.version)
    return around.links_of(routes[0]) if routes else ()
