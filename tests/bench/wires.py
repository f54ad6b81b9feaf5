# SPDX-License-Identifier: Apache-2.0
"""Links and addresses of the measured paths, made in named namespaces; they end with those."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Interface

from pyroute2 import IPRoute

from pycni.kernel import namespaces
from pycni.lab.layout import NODE_UPLINK
from pycni.lab.topology import NETNS_DIR

INSIDE = "eth0"
"""Name of the end that is in a pod."""

Place = tuple[str, IPv4Interface]
"""A namespace, and the address of its end."""


def open_iproute(netns: str) -> IPRoute:
    """pyroute2 in a named namespace."""

    def netlink_socket() -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)

    with (NETNS_DIR / netns).open() as namespace:
        made = namespaces.inside(namespace.fileno(), netlink_socket)
    return IPRoute(fileno=made.detach())


def join_nodes(
    one: Place, two: Place, *, default_routes: bool = False
) -> tuple[tuple[str, str], ...]:
    """One veth pair between two nodes; whatever uplinks they had are gone.

    `default_routes`: each is the other's gateway. Returns (namespace, interface) of both ends.
    """
    for netns, _ in (one, two):
        with open_iproute(netns) as ipr:
            for index in ipr.link_lookup(ifname=NODE_UPLINK):
                ipr.link("del", index=index)
    add_veth(one[0], NODE_UPLINK, two[0])
    with open_iproute(one[0]) as ipr:
        set_up(ipr, find(ipr, NODE_UPLINK))
    for (netns, address), (_, other) in ((one, two), (two, one)):
        set_address(netns, address)
        if default_routes:
            with open_iproute(netns) as ipr:
                ipr.route("add", dst="default", gateway=str(other.ip))
    return ((one[0], NODE_UPLINK), (two[0], NODE_UPLINK))


def add_veth(outside: str, ifname: str, inside: str, *, mtu: int = 0, bridge: int = 0) -> None:
    """A veth pair: `ifname` in the namespace `outside`, eth0 in `inside`, which is up in the end.

    With an index of a `bridge`, the outer end is its port and up, too.
    """
    size = {"mtu": mtu} if mtu else {}
    descriptor = os.open(NETNS_DIR / inside, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with open_iproute(outside) as ipr:
            peer = {"ifname": INSIDE, "net_ns_fd": descriptor, **size}
            ipr.link("add", ifname=ifname, kind="veth", peer=peer, **size)
            if bridge:
                ipr.link("set", index=find(ipr, ifname), master=bridge, state="up")
    finally:
        os.close(descriptor)
    with open_iproute(inside) as ipr:
        set_up(ipr, find(ipr, INSIDE))


def set_address(netns: str, address: IPv4Interface) -> None:
    """Give eth0 of a namespace its address."""
    with open_iproute(netns) as ipr:
        index = find(ipr, INSIDE)
        ipr.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)


def set_up(ipr: IPRoute, index: int) -> None:
    ipr.link("set", index=index, state="up")


def find(ipr: IPRoute, ifname: str) -> int:
    """The index of an interface."""
    (index,) = ipr.link_lookup(ifname=ifname)
    return int(index)
