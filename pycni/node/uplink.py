"""The uplink: the node's interface to the other nodes, and the address it is known by there.

Reads links, addresses and routes of the node's namespace; changes nothing.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute

from pycni.cluster import IPAddress
from pycni.errors import SetupError
from pycni.kernel.links import find_link

RT_SCOPE_UNIVERSE = 0


@dataclass(frozen=True)
class Uplink:
    """The interface VXLAN leaves by; `vtep` is its address, `mtu` in bytes of the IP packet."""

    ifname: str
    ifindex: int
    mtu: int
    vtep: IPAddress


def find(ipr: IPRoute, *, ifname: str = "", vtep: IPAddress | None = None) -> Uplink:
    """The uplink the settings name, else the interface that has `vtep`, else the default route's.

    Raises SetupError if there is none, or it has no address to be a VTEP.
    """
    link = _named(ipr, ifname) if ifname else _having(ipr, vtep) if vtep else _default(ipr)
    name = str(link.get("ifname"))
    addresses = _global_addresses(ipr, link["index"])
    if not addresses:
        raise SetupError(
            f"the uplink {name} has no global address",
            hint="give it one, or name another interface as `uplink` in the settings",
        )
    if vtep is not None and vtep not in addresses:
        raise SetupError(
            f"{vtep} is not an address of the uplink {name}",
            details="it has " + ", ".join(map(str, addresses)),
            hint="correct `vtep` or `uplink` in the settings",
        )
    return Uplink(name, int(link["index"]), int(link.get("mtu")), vtep or addresses[0])


def _named(ipr: IPRoute, ifname: str) -> Any:
    link = find_link(ipr, ifname)
    if link is None:
        raise SetupError(
            f"this node has no interface {ifname}",
            hint="correct `uplink` in the settings; `ip link` lists the interfaces",
        )
    return link


def _having(ipr: IPRoute, vtep: IPAddress) -> Any:
    for link in ipr.get_links():
        if vtep in _global_addresses(ipr, link["index"]):
            return link
    raise SetupError(
        f"no interface of this node has the address {vtep}",
        hint="correct `vtep` in the settings; `ip address` lists the addresses",
    )


def _default(ipr: IPRoute) -> Any:
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in ipr.get_default_routes(family=family):
            index = route.get("RTA_OIF")
            if index is not None:
                return next(iter(ipr.get_links(index)))
    raise SetupError(
        "this node has no default route, so its uplink is unknown",
        hint="name the interface as `uplink` in the settings",
    )


def _global_addresses(ipr: IPRoute, ifindex: int) -> list[IPAddress]:
    """IPv4 first, each family in the kernel's order: its first is what it sends from."""
    found = [
        ip_address(message.get("IFA_LOCAL") or message.get("IFA_ADDRESS"))
        for message in ipr.get_addr(index=ifindex)
        if message["scope"] == RT_SCOPE_UNIVERSE
    ]
    return sorted(found, key=lambda address: address.version)
