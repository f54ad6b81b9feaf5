"""A pod's link: a veth or netkit pair, its ends configured in both network namespaces.

Functions here run in the node's namespace and reach the pod's through a descriptor (namespaces.py).
The host end carries the lease (pods/lease.py), once `claim` has written it.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from loader import netkit
from pycni.cluster import IPAddress
from pycni.cni.result import IPInterface, Route
from pycni.errors import (
    InterfaceExists,
    InvalidConfig,
    PycniError,
    TryAgain,
)
from pycni.kernel import (
    deletion,
    link_events,
    namespaces,
    sysctl,
)
from pycni.kernel.links import End, link_local
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.netlink_socket import BUFFER
from pycni.kernel.routes import RT_SCOPE_UNIVERSE, RT_TABLE_MAIN
from pycni.kernel.routes import Route as KernelRoute
from pycni.kernel.rtnl import Rtnl
from pycni.names import GATEWAY_MAC, NETKIT, VETH, AttachmentKey
from pycni.pods import source_rules
from pycni.pods.lease import Lease, is_ours

HEADROOM = 70
"""Bytes before a netkit pod's frames, for VXLAN over IPv6, so that nothing is copied to make room.
The kernel adds the Ethernet header and rounds up (LL_RESERVED_SPACE, linux/netdevice.h)."""

LEAST = 0.001
"""Seconds: a timeout of 0 would not wait at all, but neither time out."""


def choose_kind(device: str) -> str:
    """Kind of the links of a network with that `device` in its configuration.

    Raises InvalidConfig if it insists on what this kernel has not.
    """
    able = device != VETH and netkit.available()
    if device == NETKIT and not able:
        raise InvalidConfig(
            'device = "netkit" in the network configuration: this kernel has no netkit',
            details=f"Linux {os.uname().release}",
            hint='set device to "auto" or "veth"; it takes Linux 6.7 with CONFIG_NETKIT',
        )
    return NETKIT if able else VETH


def setup(
    ipr: Rtnl, netns_fd: int, *, key: AttachmentKey, mac: str, mtu: int, kind: str = VETH
) -> int:
    """Create the pair, both ends down, the pod's in its namespace; returns the host's ifindex.

    It is no lease yet, see `claim`. Raises InterfaceExists if either name is taken, PycniError for
    any other refusal of the kernel. Nothing of the link is left behind on an error.
    """
    _create(ipr, netns_fd, key=key, mac=mac, mtu=mtu, kind=kind)
    try:
        _keep_ipv6_out(key.host_ifname)
        return socket.if_nametoindex(key.host_ifname)
    except BaseException:
        teardown(ipr, key.host_ifname)
        raise


def teardown(ipr: Rtnl, host_ifname: str) -> bool:
    """Delete the pair by its host end; False if it is gone already, or its name is a stranger's."""
    link = ipr.link(host_ifname)
    return link is not None and is_ours(link) and deletion.delete_link(link.ifindex)


def claim(ipr: Rtnl, lease: Lease) -> None:
    """Write the lease to the host end, and set that up. Raises InvalidConfig if it does not fit."""
    ipr.set_up(lease.ifindex, alias=lease.alias())


def raise_pod_end(netns_fd: int, ifname: str) -> None:
    """Set the pod's end up, without an address."""
    with namespaces.open_rtnl(netns_fd) as pod:
        _raise(pod, ifname)


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

    Whatever the prefix lengths, neighbours need not be there: the node's programs answer for all.
    The IPv6 link-local address is ours too, since the kernel's would go through duplicate address
    detection. A destination that has a route by another interface keeps that one, but for packets
    from these addresses (pods/source_rules.py): the IP versions of such rules are announced before.
    """
    addresses, routes = tuple(addresses), tuple(routes)
    with namespaces.open_rtnl(netns_fd) as pod:
        index = _raise(pod, ifname)
        if any(address.version == 6 for address in addresses):
            with suppress(OSError):  # what cannot be enabled fails below, by name
                namespaces.enable_ipv6(netns_fd, ifname)
        for address in addresses:
            _add_address(pod, index, address, ifname=ifname)
        if any(address.version == 6 for address in addresses):
            pod.add_address(index, link_local(mac), prefixlen=64)
        added = tuple(route for route in routes if _add_route(pod, index, route, ifname))
        taken = [route for route in routes if route not in added and route.table is None]
        for route in taken:
            _add_route(pod, index, replace(route, table=source_rules.table_of(index)), ifname)
        versions = tuple(sorted({route.dst.version for route in taken}))
        if versions:
            announce(versions)
        sources = [address.ip for address in addresses if address.version in versions]
        _add_rules(pod, index, sources, ifname)
        return added


def wait_until_up(ipr: Rtnl, host_ifname: str, *, timeout: float) -> None:
    """Return when the host end sends, or is gone. Raises TryAgain after `timeout` seconds.

    The pod's end sends once it is up; of the host's the kernel starts the queue a moment later, in
    a work of its own, and drops what comes before (linkwatch_do_dev, net/core/link_watch.c). Linux
    since 6.9 does it at once when asked for the link.
    """
    if _is_up(ipr, host_ifname):
        return
    end = time.monotonic() + timeout
    with link_events.subscribe() as events:
        while not _is_up(ipr, host_ifname):
            events.settimeout(max(end - time.monotonic(), LEAST))
            try:
                events.recv(BUFFER)
            except TimeoutError as error:
                raise TryAgain(
                    f"{host_ifname} did not come up within {timeout:.0f} s",
                    hint="the other end must be up in the pod",
                ) from error
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def _create(ipr: Rtnl, netns_fd: int, *, key: AttachmentKey, mac: str, mtu: int, kind: str) -> None:
    host, peer = End(key.host_ifname, GATEWAY_MAC, mtu), End(key.ifname, mac, mtu, netns_fd)
    try:
        if kind == NETKIT:
            ipr.add_netkit(host, peer, headroom=HEADROOM)
        else:
            ipr.add_veth(host, peer)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            raise InterfaceExists(
                f"cannot create {key.ifname} in the pod with {key.host_ifname} on the node: "
                "one of the names is taken",
                hint="run DEL for this attachment, or remove the interface that has the name",
            ) from error
        raise PycniError(
            f"cannot create the {kind} pair of {key.ifname}: {error.strerror}",
            details=f"errno {error.errno}, host end {key.host_ifname}, mtu {mtu}",
        ) from error


def _raise(pod: Rtnl, ifname: str) -> int:
    """Set the pod's end up; returns its index there."""
    index = pod.ifindex(ifname)
    pod.generate_no_address(index)
    pod.set_up(index)
    return index


def _is_up(ipr: Rtnl, host_ifname: str) -> bool:
    link = ipr.link(host_ifname)
    return link is None or link.operstate == "UP"


def _keep_ipv6_out(host_ifname: str) -> None:
    """The node's IPv6 has no business on a host end, and would add multicast entries per pod.

    Programs take every packet from it and put every packet on it. Where sysctls cannot be written
    the entries are all that differs.
    """
    with suppress(OSError):
        sysctl.write(f"net/ipv6/conf/{host_ifname}/disable_ipv6", "1")


def _add_rules(pod: Rtnl, index: int, sources: list[IPAddress], ifname: str) -> None:
    try:
        source_rules.setup(pod, index, sources)
    except NetlinkError as error:
        source_rules.remove(pod, sources)
        raise PycniError(
            f"cannot give {ifname} routes of its own beside another interface's: {error.strerror}",
            hint="the kernel needs IP_MULTIPLE_TABLES and IPV6_MULTIPLE_TABLES",
        ) from error


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


def _add_route(pod: Rtnl, index: int, route: Route, ifname: str) -> bool:
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
            f"cannot give {ifname} the {what} via {route.gateway}: {error.strerror}"
        ) from error
    return True
