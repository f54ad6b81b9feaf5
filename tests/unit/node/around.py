# SPDX-License-Identifier: Apache-2.0
"""Nodes as the kernel shows them, in few words, for tests of what is decided from it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network

from pycni.kernel.addresses import Address
from pycni.kernel.links import IFF_LOOPBACK, IFF_RUNNING, IFF_UP, Link
from pycni.kernel.routes import Hop, Route
from pycni.node.underlay import Underlay

UP = IFF_UP | IFF_RUNNING
ARPHRD_NONE = 0xFFFE

LO = Link(1, UP | IFF_LOOPBACK, "lo", mtu=65536)
ETH0 = Link(2, UP, "eth0", mtu=1500)
ETH1 = Link(3, UP, "eth1", mtu=9000)
DUMMY = Link(4, UP, "vips", mtu=1500, kind="dummy")
WIREGUARD = Link(5, UP, "wg0", mtu=1420, kind="wireguard", hardware=ARPHRD_NONE)
LINKS = (LO, ETH0, ETH1, DUMMY, WIREGUARD)


def held(link: Link, address: str, flags: int = 0, *, is_global: bool = True) -> Address:
    """An address that an interface has."""
    return Address(link.ifindex, ip_interface(address), is_global, flags)


def way(link: Link, gateway: str = "", *, is_dead: bool = False) -> Hop:
    """A way of a route."""
    return Hop(link.ifindex, ip_address(gateway) if gateway else None, is_dead)


def route(dst: str, *hops: Hop, metric: int = 0, source: str = "") -> Route:
    """A route of the main table."""
    network = ip_network({"default": "0.0.0.0/0", "default6": "::/0"}.get(dst, dst))
    preferred = ip_address(source) if source else None
    return Route(network, 0, priority=metric, source=preferred).with_hops(hops)


def around(
    addresses: Iterable[Address], routes: Iterable[Route] = (), links: Iterable[Link] = LINKS
) -> Underlay:
    """All that the kernel shows."""
    return Underlay({link.ifindex: link for link in links}, tuple(addresses), tuple(routes))
