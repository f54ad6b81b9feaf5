"""Namespaces and links of a lab: what `make_...` makes, `remove_netns` ends, also half made."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from pyroute2 import IPRoute, netns

from pycni.lab.layout import (
    BRIDGE,
    NODE_UPLINK,
    UNDERLAY4,
    UNDERLAY6,
    WORLD,
    LabNode,
    Layout,
)

NETNS_DIR = Path("/run/netns")
IFA_F_NODAD = 0x02
RT_TABLE_LOCAL = 255


def make_underlay(layout: Layout) -> None:
    """The switch and router between the nodes, with the world's addresses behind it."""
    make_netns(layout.underlay_netns)
    with IPRoute(netns=layout.underlay_netns) as ipr:
        ipr.link("add", ifname=BRIDGE, kind="bridge")
        (index,) = ipr.link_lookup(ifname=BRIDGE)
        ipr.link("set", index=index, state="up")
        for router in (UNDERLAY4, UNDERLAY6):
            _add_address(ipr, index, router)
        (loopback,) = ipr.link_lookup(ifname="lo")
        for address in WORLD:
            _add_address(ipr, loopback, _host(address))


def make_node(layout: Layout, node: LabNode) -> None:
    """A node's namespace and its uplink, plugged into the underlay."""
    make_netns(node.netns)
    with IPRoute(netns=layout.underlay_netns) as underlay:
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
    with IPRoute(netns=node.netns) as ipr:
        (uplink,) = ipr.link_lookup(ifname=NODE_UPLINK)
        ipr.link("set", index=uplink, state="up")
        for address in node.underlay:
            _add_address(ipr, uplink, address)
        for family, router in ((socket.AF_INET, UNDERLAY4.ip), (socket.AF_INET6, UNDERLAY6.ip)):
            ipr.route("add", dst="default", gateway=str(router), oif=uplink, family=family)


def make_netns(name: str) -> None:
    """A named namespace with its loopback up."""
    netns.create(name)
    with IPRoute(netns=name) as ipr:
        (loopback,) = ipr.link_lookup(ifname="lo")
        ipr.link("set", index=loopback, state="up")


def remove_netns(name: str) -> None:
    """Unmount and unlink a named namespace; its links go with it."""
    with suppress(FileNotFoundError):
        try:
            netns.remove(name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            (NETNS_DIR / name).unlink(missing_ok=True)


def kernel_entries(name: str) -> dict[str, set[str]]:
    """Addresses that a namespace's routes and neighbours name, and how it forwards frames.

    Host routes of the namespace's own addresses (table local) are no one's route to elsewhere.
    """
    with IPRoute(netns=name) as ipr:
        routes = {
            str(route.get("RTA_DST"))
            for route in ipr.get_routes()
            if route.get("RTA_TABLE") != RT_TABLE_LOCAL and route.get("RTA_DST")
        }
        neighbours = {str(entry.get("NDA_DST")) for entry in ipr.get_neighbours()}
        fdb = {str(entry.get("NDA_DST")) for entry in ipr.fdb("dump")}
    return {"routes": routes, "neighbours": neighbours, "FDB entries": fdb}


def _host(address: object) -> IPv4Interface | IPv6Interface:
    text = str(address)
    return IPv6Interface(f"{text}/128") if ":" in text else IPv4Interface(f"{text}/32")


def _add_address(ipr: IPRoute, index: int, address: IPv4Interface | IPv6Interface) -> None:
    flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
    ipr.addr(
        "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags
    )
