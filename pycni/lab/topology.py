"""Namespaces and links of a lab: what `make_...` makes, `remove_netns` ends, also half made."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from pyroute2 import IPRoute

from pycni.kernel import namespaces
from pycni.kernel.links import add_address
from pycni.lab.layout import (
    BRIDGE,
    NODE_UPLINK,
    UNDERLAY4,
    UNDERLAY6,
    WORLD,
    LabNode,
    Layout,
)

NETNS_DIR = Path("/run/pycni-netns")
"""Not /run/netns: a runtime that binds that on itself pins what others mounted below it."""
RT_TABLE_LOCAL = 255


def make_underlay(layout: Layout) -> None:
    """The switch and router between the nodes, with the world's addresses behind it."""
    make_netns(layout.underlay_netns)
    with open_iproute(layout.underlay_netns) as ipr:
        ipr.link("add", ifname=BRIDGE, kind="bridge")
        (index,) = ipr.link_lookup(ifname=BRIDGE)
        ipr.link("set", index=index, state="up")
        for router in (UNDERLAY4, UNDERLAY6):
            add_address(ipr, index, router.ip, prefixlen=router.network.prefixlen)
        (loopback,) = ipr.link_lookup(ifname="lo")
        for address in WORLD:
            add_address(ipr, loopback, address)


def make_node(layout: Layout, node: LabNode) -> None:
    """A node's namespace and its uplink, plugged into the underlay."""
    make_netns(node.netns)
    with open_iproute(layout.underlay_netns) as underlay:
        descriptor = os.open(NETNS_DIR / node.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            underlay.link(
                "add",
                ifname=node.port,
                kind="veth",
                peer={"ifname": NODE_UPLINK, "net_ns_fd": descriptor},
            )
        finally:
            os.close(descriptor)
        (port,) = underlay.link_lookup(ifname=node.port)
        (bridge,) = underlay.link_lookup(ifname=BRIDGE)
        underlay.link("set", index=port, master=bridge, state="up")
    with open_iproute(node.netns) as ipr:
        (uplink,) = ipr.link_lookup(ifname=NODE_UPLINK)
        ipr.link("set", index=uplink, state="up")
        for address in node.underlay:
            add_address(ipr, uplink, address.ip, prefixlen=address.network.prefixlen)
        for family, router in ((socket.AF_INET, UNDERLAY4.ip), (socket.AF_INET6, UNDERLAY6.ip)):
            ipr.route("add", dst="default", gateway=str(router), oif=uplink, family=family)


def make_netns(name: str) -> None:
    """A named namespace with its loopback up."""
    namespaces.create(NETNS_DIR / name)
    with open_iproute(name) as ipr:
        (loopback,) = ipr.link_lookup(ifname="lo")
        ipr.link("set", index=loopback, state="up")


def exists(name: str) -> bool:
    """Whether there is a namespace of that name."""
    return (NETNS_DIR / name).exists()


def remove_netns(name: str) -> None:
    """Unmount and unlink a named namespace; its links go with it."""
    namespaces.remove(NETNS_DIR / name)
    with suppress(OSError):  # others are in it
        NETNS_DIR.rmdir()


def open_iproute(name: str) -> IPRoute:
    """An IPRoute in a named namespace."""
    descriptor = os.open(NETNS_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return namespaces.open_iproute(descriptor)
    finally:
        os.close(descriptor)


def kernel_entries(name: str) -> dict[str, set[str]]:
    """Addresses that a namespace's routes and neighbours name, and how it forwards frames.

    Host routes of the namespace's own addresses (table local) are no one's route to elsewhere.
    """
    with open_iproute(name) as ipr:
        routes = {
            str(route.get("RTA_DST"))
            for route in ipr.get_routes()
            if route.get("RTA_TABLE") != RT_TABLE_LOCAL and route.get("RTA_DST")
        }
        neighbours = {str(entry.get("NDA_DST")) for entry in ipr.get_neighbours()}
        fdb = {str(entry.get("NDA_DST")) for entry in ipr.fdb("dump")}
    return {"routes": routes, "neighbours": neighbours, "FDB entries": fdb}
