# SPDX-License-Identifier: Apache-2.0
"""The parent: the interface of the node whose network the pods are on. Nothing here changes it.

Runs in the node's network namespace.
"""

from __future__ import annotations

from pycni.cluster import IPAddress
from pycni.errors import InvalidConfig, NotAvailable
from pycni.kernel.addresses import Address
from pycni.kernel.links import Link
from pycni.kernel.routes import RT_TABLE_MAIN
from pycni.kernel.rtnl import Rtnl
from pycni.lan import host_child
from pycni.names import ALIAS_HEAD, DEVICE


def find(ipr: Rtnl, ifname: str) -> Link:
    """The parent, which is up. Raises InvalidConfig or NotAvailable."""
    link = ipr.link(ifname)
    if link is None:
        child = ipr.link(host_child.name_of(ifname))
        now = ipr.link_at(child.peer_ifindex) if child is not None else None
        raise NotAvailable(
            f"this node has no interface {ifname} for its pods to be on",
            details=f"those that are there are on {now.ifname} now: was it renamed?" if now else "",
            hint="correct `master` in the network configuration; `ip link` lists the interfaces",
        )
    if is_own(link):
        raise InvalidConfig(
            f"pods cannot be on {ifname}: it is an interface of pycni's own",
            hint="name an interface of the LAN as `master` in the network configuration",
        )
    if not link.is_ethernet or link.is_inside:
        raise InvalidConfig(
            f"pods cannot be on {ifname}: it leads to no network of Ethernet frames",
            hint="name an interface of the LAN as `master` in the network configuration",
        )
    if not link.is_up:
        raise NotAvailable(
            f"the interface {ifname} that pods are on is down",
            hint=f"set it up: ip link set {ifname} up",
        )
    return link


def carrying(ipr: Rtnl, ifname: str, pod: Link) -> Link | None:
    """The parent of a pod whose link is `pod`, which had the name `ifname` when it was added; None
    if it is gone from this namespace. Interfaces may be renamed, and their names given to others:
    what the link is on is right."""
    named = ipr.link(ifname)
    if named is not None and host_child.is_on(pod, named):
        return named
    return ipr.link_at(pod.peer_ifindex)


def is_own(link: Link) -> bool:
    """Whether an interface leads to pods that are not on the LAN, or beside those that are."""
    return link.ifname == DEVICE or link.alias.startswith(ALIAS_HEAD)


def addresses(ipr: Rtnl, parent: Link) -> list[Address]:
    """The node's global addresses on the parent."""
    return [one for one in ipr.addresses(parent.ifindex) if one.is_global and one.is_usable]


def gateway(ipr: Rtnl, parent: Link, version: int) -> IPAddress | None:
    """The router of the node's own default route by the parent; None if there is none."""
    for route in ipr.routes():
        is_default = route.dst.version == version and route.dst.prefixlen == 0
        if is_default and route.table == RT_TABLE_MAIN:
            for hop in route.hops:
                if hop.ifindex == parent.ifindex and hop.gateway is not None:
                    return hop.gateway
    return None
