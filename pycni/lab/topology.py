# SPDX-License-Identifier: Apache-2.0
"""Namespaces and links of a lab: what `make_...` makes, `remove_netns` ends, also half made."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

from pycni.kernel import namespaces
from pycni.kernel.links import End
from pycni.kernel.routes import RT_TABLE_LOCAL, Route
from pycni.kernel.rtnl import Rtnl
from pycni.lab.layout import (
    BRIDGE,
    NODE_UPLINK,
    UNDERLAY4,
    UNDERLAY6,
    WORLD,
    LabNode,
    Layout,
)

LOOPBACK = "lo"
NETNS_DIR = Path("/run/pycni-netns")
"""Not /run/netns: a runtime that binds that on itself pins what others mounted below it."""


ROUTER_MAC = "02:70:79:00:00:fe"
"""Of the underlay's bridge. Without one of its own, a bridge has the lowest of its ports', which
changes with them; nodes would send to the old one until they ask again."""


def make_underlay(layout: Layout) -> None:
    """The switch and router between the nodes, with the world's addresses behind it."""
    make_netns(layout.underlay_netns)
    with open_rtnl(layout.underlay_netns) as ipr:
        ipr.add_bridge(BRIDGE)
        bridge, loopback = ipr.ifindex(BRIDGE), ipr.ifindex(LOOPBACK)
        ipr.set_mac(bridge, ROUTER_MAC)
        ipr.set_up(bridge)
        for router in (UNDERLAY4, UNDERLAY6):
            ipr.add_address(bridge, router.ip, prefixlen=router.network.prefixlen)
        for address in WORLD:
            ipr.add_address(loopback, address)


def make_node(layout: Layout, node: LabNode, *, mac: str = "") -> None:
    """A node's namespace and its uplink, plugged into the underlay; `mac` as in `make_uplink`."""
    make_netns(node.netns)
    make_uplink(layout, node, mac=mac)


def make_uplink(layout: Layout, node: LabNode, ifname: str = NODE_UPLINK, *, mac: str = "") -> None:
    """A node's uplink, plugged into the underlay, with its addresses and the default routes.

    `mac`: the one that it had before, as other nodes remember it; empty: any.
    """
    with open_rtnl(layout.underlay_netns) as underlay:
        descriptor = os.open(NETNS_DIR / node.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            underlay.add_veth(End(node.port), End(ifname, netns_fd=descriptor))
        finally:
            os.close(descriptor)
        port = underlay.ifindex(node.port)
        underlay.set_master(port, underlay.ifindex(BRIDGE))
        underlay.set_up(port)
    with open_rtnl(node.netns) as ipr:
        uplink = ipr.ifindex(ifname)
        if mac:
            ipr.set_mac(uplink, mac)
        ipr.set_up(uplink)
        for address in node.underlay:
            ipr.add_address(uplink, address.ip, prefixlen=address.network.prefixlen)
        for anywhere, router in (("0.0.0.0/0", UNDERLAY4.ip), ("::/0", UNDERLAY6.ip)):
            ipr.add_route(Route(ip_network(anywhere), uplink, router))


def make_netns(name: str) -> None:
    """A named namespace with its loopback up."""
    namespaces.create(NETNS_DIR / name)
    with open_rtnl(name) as ipr:
        ipr.set_up(ipr.ifindex(LOOPBACK))


def exists(name: str) -> bool:
    """Whether there is a namespace of that name."""
    return (NETNS_DIR / name).exists()


def remove_netns(name: str) -> None:
    """Unmount and unlink a named namespace; its links go with it."""
    namespaces.remove(NETNS_DIR / name)
    with suppress(OSError):  # others are in it
        NETNS_DIR.rmdir()


def open_rtnl(name: str) -> Rtnl:
    """An Rtnl in a named namespace."""
    descriptor = os.open(NETNS_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return namespaces.open_rtnl(descriptor)
    finally:
        os.close(descriptor)


def kernel_entries(name: str) -> dict[str, set[str]]:
    """Addresses that a namespace's routes and neighbours name, and how it forwards frames.

    Routes of the table local are left out: they lead to the namespace's own addresses.
    """
    with open_rtnl(name) as ipr:
        routes = {
            str(route.dst.network_address)
            for route in ipr.routes()
            if route.table != RT_TABLE_LOCAL and route.dst.prefixlen
        }
        neighbours = {str(address) for address in ipr.neighbour_addresses()}
        fdb = {str(address) for address in ipr.fdb_addresses()}
    return {"routes": routes, "neighbours": neighbours, "forwarding (FDB) entries": fdb}
