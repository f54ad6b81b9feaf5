# SPDX-License-Identifier: Apache-2.0
"""The uplink: the node's interface to the other nodes, and the address at which they reach it.

Reads links, addresses and routes of the node's namespace; changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from pycni.cluster import IPAddress
from pycni.errors import SetupError
from pycni.kernel.links import Link
from pycni.kernel.routes import RT_TABLE_MAIN
from pycni.kernel.rtnl import Rtnl


@dataclass(frozen=True)
class Uplink:
    """The interface by which VXLAN leaves; `vtep` is its address, `mtu` its largest IP packet in
    bytes."""

    ifname: str
    ifindex: int
    mtu: int
    vtep: IPAddress


def find(ipr: Rtnl, *, ifname: str = "", vtep: IPAddress | None = None) -> Uplink:
    """The interface `ifname` if the settings name one, else the one that has the address `vtep`,
    else that of the default route.

    Raises SetupError if there is none, or if it has no address that can be the VTEP.
    """
    link = _named(ipr, ifname) if ifname else _having(ipr, vtep) if vtep else _default(ipr)
    name = link.ifname
    addresses = _global_addresses(ipr, link.ifindex)
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
    return Uplink(name, link.ifindex, link.mtu, vtep or addresses[0])


def _named(ipr: Rtnl, ifname: str) -> Link:
    link = ipr.link(ifname)
    if link is None:
        raise SetupError(
            f"this node has no interface {ifname}",
            hint="correct `uplink` in the settings; `ip link` lists the interfaces",
        )
    return link


def _having(ipr: Rtnl, vtep: IPAddress) -> Link:
    for link in ipr.links():
        if vtep in _global_addresses(ipr, link.ifindex):
            return link
    raise SetupError(
        f"no interface of this node has the address {vtep}",
        hint="correct `vtep` in the settings; `ip address` lists the addresses",
    )


def _default(ipr: Rtnl) -> Link:
    routes = [one for one in ipr.routes() if one.table == RT_TABLE_MAIN and not one.dst.prefixlen]
    for route in sorted(routes, key=lambda route: route.dst.version):
        link = ipr.link_at(route.ifindex) if route.ifindex else None
        if link is not None:
            return link
    raise SetupError(
        "this node has no default route, so its uplink is unknown",
        hint="name the interface as `uplink` in the settings",
    )


def _global_addresses(ipr: Rtnl, ifindex: int) -> list[IPAddress]:
    """IPv4 first, each family in the kernel's order: the kernel sends from the first one."""
    found = [address.ip for address in ipr.addresses(ifindex) if address.is_global]
    return sorted(found, key=lambda address: address.version)
