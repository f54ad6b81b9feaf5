# SPDX-License-Identifier: Apache-2.0
"""The overlay device of a node, `pycni0`: a VXLAN device that takes tunnel keys from packets'
metadata, with the gateway addresses and one route per family.

The device knows nothing of other nodes: BPF maps say where a packet goes, never FDB, ARP or route
entries. Functions run in the node's network namespace, through the Rtnl they are given.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

from pycni.cluster import IPAddress, IPNetwork
from pycni.errors import SetupError
from pycni.kernel import sysctl
from pycni.kernel.links import IFF_NOARP, Link, Vxlan
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.routes import RT_TABLE_MAIN, RTN_LOCAL, Route, local_route
from pycni.kernel.rtnl import Rtnl
from pycni.names import DEVICE as DEVICE
from pycni.names import GATEWAY_MAC

NEXT_HOPS: dict[int, IPAddress] = {4: ip_address("169.254.1.1"), 6: ip_address("fe80::1")}
"""Next hop of the cluster route, per family. No host has these addresses. On a NOARP device a next
hop makes one neighbour entry per family; an on-link route would make one per pod."""

IPV6_FORWARDING = "net/ipv6/conf/all/forwarding"
NEW_WITHOUT_IPV6 = "net/ipv6/conf/default/disable_ipv6"
WITHOUT_IPV6 = f"net/ipv6/conf/{DEVICE}/disable_ipv6"
SWITCH_IPV6_ON = (
    "IPv6 is switched off on this host: run sysctl -w net.ipv6.conf.all.disable_ipv6=0, or leave "
    "the IPv6 network out of cluster_cidrs"
)


def setup(ipr: Rtnl, *, port: int, mtu: int) -> int:
    """Create the device, down, and return its ifindex. A device of ours that is the same stays.

    `port` is the UDP port, `mtu` the largest inner IP packet in bytes. Raises SetupError if an
    interface that pycni did not make has the name, or if another VXLAN device has the port.
    """
    existing = find(ipr)
    if existing is not None:
        if is_ours(existing, port):
            if existing.mac != GATEWAY_MAC:
                ipr.set_mac(existing.ifindex, GATEWAY_MAC)
            ipr.set_mtu(existing.ifindex, mtu)
            if existing.master:
                ipr.set_master(existing.ifindex, 0)
            return existing.ifindex
        if existing.kind != "vxlan" or existing.mac != GATEWAY_MAC:
            raise SetupError(
                f"there is an interface {DEVICE} that pycni did not make",
                hint=f"rename or remove it: ip link del {DEVICE}",
            )
        teardown(ipr)
    return _create(ipr, port=port, mtu=mtu)


def teardown(ipr: Rtnl) -> None:
    """Delete the device if it is ours; its addresses and routes go with it."""
    device = find(ipr)
    if device is None or device.vxlan is None:
        return
    if device.mac == GATEWAY_MAC or device.vxlan.collects_metadata:  # others may change the MAC
        ipr.delete_link(device.ifindex)


def bring_up(
    ipr: Rtnl,
    ifindex: int,
    *,
    port: int,
    gateways: tuple[IPAddress, ...],
    clusters: tuple[IPNetwork, ...],
) -> None:
    """Set the device up and give it the gateway addresses and the cluster routes.

    Call it after the programs are attached: the device accepts every VXLAN frame that reaches its
    port, and only `from_overlay` checks who sent it. Raises SetupError, among others if another
    socket has the port.
    """
    try:
        ipr.set_up(ifindex, flags=IFF_NOARP)
    except NetlinkError as error:
        if error.errno == errno.EADDRINUSE:
            raise _port_taken(port) from error
        raise SetupError(
            f"cannot set {DEVICE} up: {error.strerror}",
            hint=f"look at it and at the kernel's log: ip -d link show {DEVICE}; journalctl -k",
        ) from error
    try:
        _replace_addresses(ipr, ifindex, gateways)
        for cluster in clusters:
            gateway = next(g for g in gateways if g.version == cluster.version)
            _route(ipr, ifindex, cluster, source=gateway)
    except NetlinkError as error:
        raise SetupError(
            f"cannot give {DEVICE} its addresses and routes: {error.strerror}",
            hint="is IPv6 off on this node? Then leave the IPv6 network out of cluster_cidrs",
        ) from error


def unrouted(ipr: Rtnl, gateways: Iterable[IPAddress]) -> list[IPAddress]:
    """Addresses of the device, which is up, that the kernel does not take for the host's: somebody
    has removed their local routes. Raises NetlinkError."""
    routes = {gateway: ipr.route_to(gateway) for gateway in gateways}
    return [one for one, route in routes.items() if route is None or route.kind != RTN_LOCAL]


def restore_route(ipr: Rtnl, ifindex: int, gateway: IPAddress) -> None:
    """Make the local route of an address again. Raises NetlinkError.

    The kernel gives its own IPv6 ones a metric that nobody else can give: a second one beside it
    would make both of no use later. So the address comes anew, and the kernel makes the route.
    """
    if gateway.version == 4:
        ipr.replace_route(local_route(gateway, ifindex))
        return
    ipr.delete_address(ifindex, gateway, prefixlen=gateway.max_prefixlen)
    ipr.add_address(ifindex, gateway)


def plan_forwarding(outer: Iterable[str], *, ipv6: bool) -> dict[str, str]:
    """Kernel parameters that let packets pass between the overlay device and the interfaces `outer`
    (underlay.py), by name.

    IPv4 forwards what comes in on a device if that device says so. IPv6 has one switch for the
    whole host, and a host that forwards ignores router advertisements unless accept_ra is 2
    (ip-sysctl.rst). So interfaces that take them now get accept_ra 2.
    """
    names = list(outer)
    wanted = {
        f"net/ipv4/conf/{DEVICE}/forwarding": "1",
        **{f"net/ipv4/conf/{name}/forwarding": "1" for name in names},
        f"net/ipv4/conf/{DEVICE}/send_redirects": "0",
        # a pod must not have the host route its packet anew, to loopback addresses among others
        f"net/ipv4/conf/{DEVICE}/accept_source_route": "0",
        # for the host's own connections from 127.0.0.1 to host ports; from_container drops what
        # a pod sends to a loopback address
        f"net/ipv4/conf/{DEVICE}/route_localnet": "1",
    }
    if ipv6:
        for accept_ra in (f"net/ipv6/conf/{name}/accept_ra" for name in names):
            if sysctl.read(accept_ra) in ("1", "2"):
                wanted[accept_ra] = "2"
        wanted[IPV6_FORWARDING] = "1"
        if sysctl.read(NEW_WITHOUT_IPV6) == "0":  # else it is off on purpose
            wanted[WITHOUT_IPV6] = "0"
    return wanted


def todo_of(version: int) -> str:
    """What a person has to do before the device can have addresses and routes of an IP version;
    empty if it can."""
    is_off = version == 6 and "1" == sysctl.read(NEW_WITHOUT_IPV6) == sysctl.read(WITHOUT_IPV6)
    return SWITCH_IPV6_ON if is_off else ""


def parameters_before(wanted: dict[str, str]) -> dict[str, str]:
    """The values to write back, in this order, to undo `wanted`; without those of the overlay
    device, which go with it.

    IPv6's switch for all interfaces overwrites that of each interface. So the interfaces that had
    another value follow it.
    """
    before = {
        name: value
        for name in wanted
        if f"/{DEVICE}/" not in name and (value := sysctl.read(name)) not in (None, wanted[name])
    }
    if IPV6_FORWARDING in before:
        for name in sysctl.names("net/ipv6/conf/*/forwarding"):
            value = sysctl.read(name)
            if value not in (None, before[IPV6_FORWARDING]) and f"/{DEVICE}/" not in name:
                before[name] = value
    return before


def write_parameters(values: dict[str, str]) -> None:
    """Write kernel parameters, but for those of interfaces that are gone."""
    for name, value in values.items():
        sysctl.write(name, value)


def find(ipr: Rtnl) -> Link | None:
    """The device, or None."""
    return ipr.link(DEVICE)


def ifindex() -> int:
    """The index of the device, 0 if it is gone. In the calling thread's network namespace."""
    try:
        return socket.if_nametoindex(DEVICE)
    except OSError:
        return 0


def is_ours(link: Link, port: int) -> bool:
    """Whether pycni made a link of that name: by what only a new one can change, not by its MAC."""
    return link.vxlan == Vxlan(port, collects_metadata=True)


def underlay_networks(ipr: Rtnl) -> list[IPNetwork]:
    """The networks that this node reaches on-link, without those of its overlay device."""
    own = find(ipr)
    networks: list[IPNetwork] = []
    for address in ipr.addresses():
        if own is not None and address.ifindex == own.ifindex:
            continue
        network = address.interface.network
        if not (network.is_loopback or network.is_link_local):
            networks.append(network)
    return networks


def routed_networks(ipr: Rtnl) -> list[IPNetwork]:
    """The networks that the main routing table has routes to, without those by the overlay
    device."""
    own = find(ipr)
    return [
        route.dst
        for route in ipr.routes()
        if route.table == RT_TABLE_MAIN
        and route.dst.prefixlen
        and (own is None or route.ifindex != own.ifindex)
    ]


def _create(ipr: Rtnl, *, port: int, mtu: int) -> int:
    _refuse_second_device(ipr, port)
    with ExitStack() as undo:
        try:
            ipr.add_vxlan(DEVICE, mac=GATEWAY_MAC, mtu=mtu, port=port)
        except NetlinkError as error:
            if error.errno == errno.EEXIST:
                raise _moved_away(port) from error
            raise SetupError(
                f"cannot create the VXLAN device {DEVICE} (UDP port {port}): {error.strerror}",
                hint="does this kernel have the module vxlan (modprobe vxlan)?",
            ) from error
        undo.callback(teardown, ipr)
        ifindex = ipr.ifindex(DEVICE)
        ipr.generate_no_address(ifindex)
        undo.pop_all()
    return ifindex


def _refuse_second_device(ipr: Rtnl, port: int) -> None:
    for link in ipr.links():
        if link.vxlan is not None and link.vxlan.port == port:
            raise SetupError(
                f"UDP port {port} is taken by the VXLAN device {link.ifname}",
                hint=f"remove it (ip link del {link.ifname}) or set another `port` "
                "in the settings of every node",
            )


def _moved_away(port: int) -> SetupError:
    """Of a device that was made in this namespace, and keeps its port where it is now."""
    return SetupError(
        f"UDP port {port} is taken by a VXLAN device that somebody moved from here to another "
        "network namespace",
        hint="remove it, where this finds it: ip -all netns exec ip -d link show type vxlan; or "
        "end the container that has it",
    )


def _port_taken(port: int) -> SetupError:
    owner = _udp_owner(port)
    return SetupError(
        f"UDP port {port} is taken" + (f" by {owner}" if owner else " by another socket"),
        hint="stop it, or set another `port` in the settings of every node",
    )


def _udp_owner(port: int) -> str:
    """Name and pid of the process that has a UDP socket on the port, from procfs (proc(5))."""
    inodes = set()
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            with Path(table).open() as lines:
                next(lines)
                rows = [line.split() for line in lines]
        except OSError:
            continue
        inodes |= {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in Path("/proc", pid, "fd").iterdir():
                target = str(fd.readlink())
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    return f"{Path('/proc', pid, 'comm').read_text().strip()} (pid {pid})"
        except OSError:
            continue
    return ""


def _replace_addresses(ipr: Rtnl, ifindex: int, gateways: tuple[IPAddress, ...]) -> None:
    have = {address.ip: address for address in ipr.addresses(ifindex)}
    for gateway in unrouted(ipr, [one for one in gateways if one in have]):
        restore_route(ipr, ifindex, gateway)
    for gateway in gateways:
        if have.pop(gateway, None) is None:
            ipr.add_address(ifindex, gateway)
    for ip, address in have.items():
        ipr.delete_address(ifindex, ip, prefixlen=address.interface.network.prefixlen)


def _route(ipr: Rtnl, ifindex: int, cluster: IPNetwork, *, source: IPAddress) -> None:
    ipr.replace_route(Route(cluster, ifindex, NEXT_HOPS[cluster.version], source))
