"""The overlay device of a node: one metadata VXLAN device, its gateway addresses, one route a
family.

The device carries no per-node state: whom a packet goes to is in BPF maps, never in FDB, ARP or
route entries. Functions run in the node's network namespace, through the IPRoute they are given.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pycni.cluster import IPAddress, IPNetwork
from pycni.errors import SetupError
from pycni.kernel import sysctl
from pycni.kernel.links import (
    IFF_NOARP,
    IFF_UP,
    add_address,
    find_link,
    generate_no_address,
)
from pycni.names import GATEWAY_MAC

DEVICE = "pycni0"

NEXT_HOPS: dict[int, str] = {4: "169.254.1.1", 6: "fe80::1"}
"""Next hop of the cluster route, per family. Nobody has it: on a NOARP device it only keeps the
kernel to one hidden neighbour entry a family, where an on-link route would make one per pod."""

IPV6_FORWARDING = "net/ipv6/conf/all/forwarding"
RT_TABLE_MAIN = 254


def setup(ipr: IPRoute, *, port: int, mtu: int) -> int:
    """Create the device, down; returns its ifindex. An equal device of ours is kept.

    `port` is the UDP port, `mtu` the largest inner IP packet in bytes. Raises SetupError if a
    stranger has the device's name, or a device with the same port exists.
    """
    existing = find(ipr)
    if existing is not None:
        if _is_ours(existing, port):
            set_mtu(ipr, int(existing["index"]), mtu)
            return int(existing["index"])
        if existing.get(("linkinfo", "kind")) != "vxlan" or existing.get("address") != GATEWAY_MAC:
            raise SetupError(
                f"there is an interface {DEVICE} already that pycni did not make",
                hint=f"rename or remove it: ip link del {DEVICE}",
            )
        teardown(ipr)
    return _create(ipr, port=port, mtu=mtu)


def teardown(ipr: IPRoute) -> None:
    """Delete the device; its addresses and routes go with it."""
    device = find(ipr)
    if device is not None and device.get("address") == GATEWAY_MAC:
        ipr.link("del", index=device["index"])


def set_mtu(ipr: IPRoute, ifindex: int, mtu: int) -> None:
    """Make `mtu` (bytes of an inner IP packet) the device's."""
    ipr.link("set", index=ifindex, mtu=mtu)


def bring_up(
    ipr: IPRoute,
    ifindex: int,
    *,
    port: int,
    gateways: tuple[IPAddress, ...],
    clusters: tuple[IPNetwork, ...],
) -> None:
    """Set the device up and give it the gateway addresses and the cluster routes.

    Comes after the programs are attached: a metadata device accepts every VXLAN frame that reaches
    its port, and only `from_overlay` knows which to believe. Raises SetupError if the port is
    taken.
    """
    try:
        ipr.link("set", index=ifindex, flags=IFF_UP | IFF_NOARP, change=IFF_UP | IFF_NOARP)
    except NetlinkError as error:
        if error.code == errno.EADDRINUSE:
            raise _port_taken(port) from error
        raise SetupError(f"cannot set {DEVICE} up: {os.strerror(error.code)}") from error
    try:
        _replace_addresses(ipr, ifindex, gateways)
        for cluster in clusters:
            gateway = next(g for g in gateways if g.version == cluster.version)
            _route(ipr, ifindex, cluster, source=gateway)
    except NetlinkError as error:
        raise SetupError(
            f"cannot give {DEVICE} its addresses and routes: {os.strerror(error.code)}",
            hint="is IPv6 off on this node? Then leave the IPv6 network out of cluster_cidrs",
        ) from error


def plan_forwarding(uplink: str, *, ipv6: bool) -> dict[str, str]:
    """Kernel parameters that let packets pass between the overlay device and the uplink.

    IPv4 per device. IPv6 has one switch for the whole host, and a host that forwards ignores
    router advertisements unless accept_ra is 2 (ip-sysctl.rst): an uplink that lives by them
    keeps them.
    """
    wanted = {
        f"net/ipv4/conf/{DEVICE}/forwarding": "1",
        f"net/ipv4/conf/{uplink}/forwarding": "1",
        f"net/ipv4/conf/{DEVICE}/send_redirects": "0",
        # for the host's own connections from 127.0.0.1 to host ports; from_container drops what
        # a pod sends to a loopback address
        f"net/ipv4/conf/{DEVICE}/route_localnet": "1",
    }
    if ipv6:
        accept_ra = f"net/ipv6/conf/{uplink}/accept_ra"
        if sysctl.read(accept_ra) == "1":
            wanted[accept_ra] = "2"
        wanted[IPV6_FORWARDING] = "1"
    return wanted


def parameters_before(wanted: dict[str, str]) -> dict[str, str]:
    """What to write back, in this order, to undo `wanted`; the device's own go with it.

    Writing IPv6's switch for all interfaces overwrites each one's, so those that differ follow it.
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
    """Write kernel parameters; those of interfaces that are gone are passed over."""
    for name, value in values.items():
        sysctl.write(name, value)


def find(ipr: IPRoute) -> Any | None:
    """The device's link message, or None."""
    return find_link(ipr, DEVICE)


def underlay_networks(ipr: IPRoute) -> list[IPNetwork]:
    """Networks this node can reach on-link, but for its own overlay device's."""
    own = find(ipr)
    networks: list[IPNetwork] = []
    for message in ipr.get_addr():
        if own is not None and message["index"] == own["index"]:
            continue
        address = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
        network = ip_network(f"{address}/{message['prefixlen']}", strict=False)
        if not (network.is_loopback or network.is_link_local):
            networks.append(network)
    return networks


def routed_networks(ipr: IPRoute) -> list[IPNetwork]:
    """Networks the main routing table has routes to, but for those by our own overlay device."""
    own = find(ipr)
    return [
        ip_network(f"{route.get('RTA_DST')}/{route['dst_len']}")
        for route in ipr.get_routes()
        if route.get("RTA_TABLE") == RT_TABLE_MAIN
        and route.get("RTA_DST")
        and (own is None or route.get("RTA_OIF") != own["index"])
    ]


def _create(ipr: IPRoute, *, port: int, mtu: int) -> int:
    _refuse_second_device(ipr, port)
    with ExitStack() as undo:
        try:
            ipr.link(
                "add",
                ifname=DEVICE,
                kind="vxlan",
                address=GATEWAY_MAC,
                mtu=mtu,
                vxlan_collect_metadata=True,
                vxlan_learning=False,
                vxlan_port=port,
                vxlan_udp_zero_csum6_tx=True,
                vxlan_udp_zero_csum6_rx=True,
            )
        except NetlinkError as error:
            raise SetupError(
                f"cannot create the VXLAN device {DEVICE} (UDP port {port}): "
                f"{os.strerror(error.code)}",
                hint="is the kernel's vxlan module there (modprobe vxlan)?",
            ) from error
        undo.callback(teardown, ipr)
        (index,) = ipr.link_lookup(ifname=DEVICE)
        generate_no_address(ipr, index)
        undo.pop_all()
    return int(index)


def _is_ours(link: Any, port: int) -> bool:
    data = link.get(("linkinfo", "data"))
    return bool(
        link.get(("linkinfo", "kind")) == "vxlan"
        and link.get("address") == GATEWAY_MAC
        and data is not None
        and data.get_attr("IFLA_VXLAN_PORT") == port
        and data.get_attr("IFLA_VXLAN_COLLECT_METADATA")
    )


def _refuse_second_device(ipr: IPRoute, port: int) -> None:
    for link in ipr.get_links():
        data = link.get(("linkinfo", "data"))
        if (
            link.get(("linkinfo", "kind")) == "vxlan"
            and data is not None
            and data.get_attr("IFLA_VXLAN_PORT") == port
        ):
            raise SetupError(
                f"UDP port {port} is taken by the VXLAN device {link.get('ifname')}",
                hint=f"remove it (ip link del {link.get('ifname')}) or set another `port` "
                "in the settings of every node",
            )


def _port_taken(port: int) -> SetupError:
    owner = _udp_owner(port)
    return SetupError(
        f"UDP port {port} is taken" + (f" by {owner}" if owner else " by another socket"),
        hint="stop it, or set another `port` in the settings of every node",
    )


def _udp_owner(port: int) -> str:
    """Name and pid of the process with a UDP socket on the port, as procfs tells (proc(5))."""
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


def _replace_addresses(ipr: IPRoute, ifindex: int, gateways: tuple[IPAddress, ...]) -> None:
    have = {
        message.get("IFA_LOCAL") or message.get("IFA_ADDRESS"): message
        for message in ipr.get_addr(index=ifindex)
    }
    for gateway in gateways:
        if have.pop(str(gateway), None) is None:
            add_address(ipr, ifindex, gateway)
    for address, message in have.items():
        ipr.addr("del", index=ifindex, address=address, prefixlen=message["prefixlen"])


def _route(ipr: IPRoute, ifindex: int, cluster: IPNetwork, *, source: IPAddress) -> None:
    ipr.route(
        "replace",
        dst=str(cluster),
        gateway=NEXT_HOPS[cluster.version],
        oif=ifindex,
        prefsrc=str(source),
        flags=["onlink"],
        family=socket.AF_INET if cluster.version == 4 else socket.AF_INET6,
    )
