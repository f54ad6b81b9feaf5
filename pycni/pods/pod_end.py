# SPDX-License-Identifier: Apache-2.0
"""The pod's end of its link: state, addresses, routes.

Functions are called in the node's network namespace and reach the pod's through a descriptor
(kernel/namespaces.py).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from pycni.cluster import IPAddress
from pycni.cni.result import IPInterface, Result, Route
from pycni.errors import PycniError, TryAgain
from pycni.kernel import namespaces
from pycni.kernel.links import Link, link_local
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.routes import RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RT_TABLE_MAIN, RTN_LOCAL
from pycni.kernel.routes import Route as KernelRoute
from pycni.kernel.rtnl import Rtnl
from pycni.pods import source_rules

LOOK_AGAIN = 0.002
"""Seconds between two looks at an address that a pod does not take yet."""


def close(netns_fd: int, ifname: str) -> dict[str, str]:
    """Make the pod's end ignore what neighbours and routers say, while it is still down.

    Its only neighbour is the node, whose programs answer for every address. Returns the kernel
    parameters that had another value, with that value: `reopen` writes them back. Raises PycniError
    if the kernel refuses.
    """
    wanted = {
        f"net/ipv6/conf/{ifname}/accept_ra": "0",
        f"net/ipv6/conf/{ifname}/accept_redirects": "0",
        f"net/ipv4/conf/{ifname}/accept_redirects": "0",
        # a host accepts them if either is set (ip-sysctl.rst); last: the others go with the link
        "net/ipv4/conf/all/accept_redirects": "0",
    }
    try:
        return namespaces.write_parameters(netns_fd, wanted)
    except OSError as error:
        raise PycniError(
            f"cannot make {ifname} ignore router advertisements and redirects: {error.strerror}",
            details=str(error.filename or ""),
            hint="/proc/sys must be writable for pycni",
        ) from error


def reopen(netns_fd: int, before: Mapping[str, str]) -> None:
    """Undo of `close`."""
    with suppress(OSError):
        namespaces.write_parameters(netns_fd, before)


def bring_up(netns_fd: int, ifname: str) -> None:
    """Set the pod's end up, without an address."""
    with namespaces.open_rtnl(netns_fd) as pod:
        _bring_up(pod, ifname)


def configure(
    netns_fd: int,
    ifname: str,
    *,
    mac: str,
    addresses: Iterable[IPInterface],
    routes: Iterable[Route],
    announce: Callable[[tuple[int, ...]], None],
) -> tuple[Route, ...]:
    """Set the pod's end up with its addresses and routes; returns the routes in effect.

    A neighbour need not exist, whatever the prefix lengths: the node's programs answer for every
    address. The IPv6 link-local address is set here, because the kernel's own would go through
    duplicate address detection.

    If a destination already has a route through another interface, that route stays, and packets
    from these addresses get a routing table of their own (pods/source_rules.py). `announce` is told
    the IP versions of such rules before the rules exist.
    """
    addresses, routes = tuple(addresses), tuple(routes)
    with namespaces.open_rtnl(netns_fd) as pod:
        index = _bring_up(pod, ifname)
        if any(address.version == 6 for address in addresses):
            with suppress(OSError):  # if it stays off, adding the address fails with a clear error
                namespaces.enable_ipv6(netns_fd, ifname)
        for address in addresses:
            _add_address(pod, index, address, ifname=ifname)
        if any(address.version == 6 for address in addresses):
            pod.add_address(index, link_local(mac), prefixlen=64)
        added = tuple(route for route in routes if _add_route(pod, index, route, ifname=ifname))
        taken = [route for route in routes if route not in added and route.table is None]
        for route in taken:
            own = replace(route, table=source_rules.table_of(index))
            _add_route(pod, index, own, ifname=ifname)
        versions = tuple(sorted({route.dst.version for route in taken}))
        if versions:
            announce(versions)
        sources = [address.ip for address in addresses if address.version in versions]
        _add_rules(pod, index, sources, ifname=ifname)
        return added


def add_neighbours(netns_fd: int, ifname: str, addresses: Iterable[IPInterface]) -> None:
    """Have the interface's own routing table know that hosts of the addresses' networks are on the
    link, as the main table does. For a link that leads to hosts, and not to the node alone."""
    with namespaces.open_rtnl(netns_fd) as pod:
        index = pod.ifindex(ifname)
        for address in addresses:
            scope = RT_SCOPE_LINK if address.version == 4 else None
            route = Route(address.network, table=source_rules.table_of(index), scope=scope)
            _add_route(pod, index, route, ifname=ifname)


def wait_until_heard(
    netns_fd: int, ifname: str, *, addresses: Iterable[IPAddress], timeout: float
) -> None:
    """Return when the pod takes packets to its addresses, or has no such interface any more.

    Raises TryAgain after `timeout` seconds.

    The kernel adds an IPv6 address at once, but its local route a moment later from a work item,
    even without duplicate address detection, and drops packets until then (addrconf_dad_work,
    net/ipv6/addrconf.c). The link must be up on both ends.
    """
    end = time.monotonic() + timeout
    with namespaces.open_rtnl(netns_fd) as pod:
        for address in addresses:
            while not _is_local(pod, address) and pod.link(ifname) is not None:
                if time.monotonic() > end:
                    raise TryAgain(
                        f"the pod took nothing sent to {address} within {timeout:.0f} s",
                        hint="look for what takes addresses from the pod, or its link down",
                    )
                time.sleep(LOOK_AGAIN)


def _is_local(pod: Rtnl, address: IPAddress) -> bool:
    route = pod.route_to(address)
    return route is not None and route.kind == RTN_LOCAL


def problems(
    netns_fd: int,
    ifname: str,
    *,
    addresses: Sequence[IPAddress],
    ruled: Iterable[IPAddress],
    previous: Result,
) -> list[str]:
    """What of state, MAC, MTU, addresses and routes is no longer as it should be, a sentence each.

    MAC, MTU and routes are compared with `previous`, the final result of the chain: a later plugin
    may have changed them, and multus removes the default route on purpose. `addresses` are the
    lease's, and those `ruled` have a routing table of their own. Changes nothing.
    """
    with namespaces.open_rtnl(netns_fd) as pod:
        link = pod.link(ifname)
        if link is None:
            return [f"the pod has no interface {ifname}"]
        return [
            *_link_problems(link, ifname, previous),
            *_address_problems(pod, link.ifindex, addresses=addresses, previous=previous),
            *_route_problems(pod, previous),
            *source_rules.problems(pod, link.ifindex, ruled),
        ]


def _bring_up(pod: Rtnl, ifname: str) -> int:
    """Returns the index that the interface has in the pod."""
    index = pod.ifindex(ifname)
    pod.generate_no_address(index)
    pod.set_up(index)
    return index


def _add_address(pod: Rtnl, index: int, address: IPInterface, *, ifname: str) -> None:
    try:
        pod.add_address(index, address.ip, prefixlen=address.network.prefixlen)
    except NetlinkError as error:
        raise PycniError(
            f"cannot give {ifname} the address {address}: {error.strerror}",
            hint="IPv6 is off in the pod: check net.ipv6.conf, and that `mtu` is 1280 or more"
            if address.version == 6
            else "",
        ) from error


def _add_route(pod: Rtnl, index: int, route: Route, *, ifname: str) -> bool:
    """False if the destination has a route already."""
    wanted = KernelRoute(
        route.dst,
        index,
        route.gateway,
        table=RT_TABLE_MAIN if route.table is None else route.table,
        scope=route.scope or RT_SCOPE_UNIVERSE,
        priority=route.priority or 0,
        mtu=route.mtu or 0,
        advmss=route.advmss or 0,
    )
    try:
        pod.add_route(wanted)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            return False
        what = "default route" if route.dst.prefixlen == 0 else f"route to {route.dst}"
        raise PycniError(
            f"cannot give {ifname} the {what} via {route.gateway}: {error.strerror}",
            hint="the pod must reach the gateway by another route: correct `routes` in the IPAM "
            "configuration",
        ) from error
    return True


def _add_rules(pod: Rtnl, index: int, sources: list[IPAddress], *, ifname: str) -> None:
    try:
        source_rules.setup(pod, index, sources)
    except NetlinkError as error:
        source_rules.remove(pod, sources)
        raise PycniError(
            f"cannot give {ifname} routes of its own beside another interface's: {error.strerror}",
            hint="the kernel needs IP_MULTIPLE_TABLES and IPV6_MULTIPLE_TABLES",
        ) from error


def _link_problems(link: Link, ifname: str, previous: Result) -> list[str]:
    found = [] if link.is_up else [f"{ifname} is down in the pod"]
    for interface in previous.interfaces:
        if interface.name == ifname and interface.sandbox:
            if interface.mac and interface.mac.lower() != link.mac:
                found.append(f"{ifname} has the MAC {link.mac}, expected {interface.mac}")
            if interface.mtu and interface.mtu != link.mtu:
                found.append(f"{ifname} has the MTU {link.mtu}, expected {interface.mtu}")
    return found


def _address_problems(
    pod: Rtnl, index: int, *, addresses: Sequence[IPAddress], previous: Result
) -> list[str]:
    have = {address.ip for address in pod.addresses(index)}
    promised = {address.address.ip for address in previous.ips}
    return [
        *(f"{address} is missing in the pod" for address in addresses if address not in have),
        *(
            f"{address} of this attachment is not in prevResult"
            for address in addresses
            if address not in promised
        ),
    ]


def _route_problems(pod: Rtnl, previous: Result) -> list[str]:
    """Looks at the routes of all interfaces: other plugins of the chain may have made interfaces
    with routes of their own."""
    have = {route.dst for route in pod.routes()}
    return [
        f"the route to {route.dst} is missing in the pod"
        for route in previous.routes
        if route.dst not in have
    ]
