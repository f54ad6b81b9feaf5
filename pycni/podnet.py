"""A pod's link: the veth pair, its ends configured in both network namespaces.

Functions here run in the node's namespace and reach the pod's through a descriptor (nsenter.py).
The host end carries the lease (lease.py).
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pycni import nsenter, sysctl
from pycni.cluster import IPAddress
from pycni.errors import InterfaceExists, PycniError
from pycni.lease import AttachmentKey, Lease, is_ours
from pycni.links import IFF_UP, add_address, delete_link, find_link, generate_no_address
from pycni.maps import GATEWAY_MAC


def setup(ipr: IPRoute, netns_fd: int, *, key: AttachmentKey, lease: Lease, mtu: int) -> Lease:
    """Create the veth pair, its pod's end down in the pod's namespace; returns the taken lease.

    Raises InterfaceExists if either name is taken, PycniError for any other refusal of the kernel.
    Nothing of the link is left behind on an error.
    """
    _create(ipr, netns_fd, key=key, mac=lease.mac, mtu=mtu)
    try:
        (ifindex,) = ipr.link_lookup(ifname=key.host_ifname)
        _keep_ipv6_out(key.host_ifname)
        ipr.link("set", index=ifindex, flags=IFF_UP, change=IFF_UP, IFLA_IFALIAS=lease.alias())
    except BaseException:
        teardown(ipr, key)
        raise
    return replace(lease, host_ifname=key.host_ifname, ifindex=ifindex)


def teardown(ipr: IPRoute, key: AttachmentKey) -> bool:
    """Delete the pair by its host end; False if it is gone already, or its name is a stranger's."""
    link = find_link(ipr, key.host_ifname)
    return link is not None and is_ours(link) and delete_link(ipr, key.host_ifname)


def configure(
    netns_fd: int, ifname: str, *, lease: Lease, gateways: tuple[IPAddress, ...]
) -> tuple[IPAddress, ...]:
    """Set the pod's end up with its addresses and default routes; returns the gateways in use.

    Addresses are /32 and /128: every other address lies behind the gateway, on-link by decree. The
    IPv6 link-local address is ours too, since the kernel's would go through duplicate address
    detection. A family that has a default route by another interface keeps that one.
    """
    with nsenter.open_iproute(netns_fd) as pod:
        (index,) = pod.link_lookup(ifname=ifname)
        generate_no_address(pod, index)
        pod.link("set", index=index, flags=IFF_UP, change=IFF_UP)
        if any(address.version == 6 for address in lease.addresses):
            with suppress(OSError):  # what cannot be enabled fails below, by name
                nsenter.enable_ipv6(netns_fd, ifname)
        for address in lease.addresses:
            _add_address(pod, index, address, ifname=ifname)
        if any(address.version == 6 for address in lease.addresses):
            add_address(pod, index, link_local(lease.mac), prefixlen=64)
        return tuple(
            gateway for gateway in gateways if _add_default_route(pod, index, gateway, ifname)
        )


def link_local(mac: str) -> IPv6Address:
    """Modified EUI-64 link-local address of a MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    )


def _create(ipr: IPRoute, netns_fd: int, *, key: AttachmentKey, mac: str, mtu: int) -> None:
    try:
        ipr.link(
            "add",
            ifname=key.host_ifname,
            kind="veth",
            address=GATEWAY_MAC,
            mtu=mtu,
            peer={"ifname": key.ifname, "address": mac, "mtu": mtu, "net_ns_fd": netns_fd},
        )
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise InterfaceExists(
                f"cannot create {key.ifname} in the pod with {key.host_ifname} on the node: "
                "one of the names is taken",
                hint="run DEL for this attachment, or remove the interface that has the name",
            ) from error
        raise PycniError(
            f"cannot create the veth pair of {key.ifname}: {os.strerror(error.code)}",
            details=f"errno {error.code}, host end {key.host_ifname}, mtu {mtu}",
        ) from error


def _keep_ipv6_out(host_ifname: str) -> None:
    """The node's IPv6 has no business on a host veth, and would add multicast entries per pod.

    Programs take every packet from it and put every packet on it. Where sysctls cannot be written
    the entries are all that differs.
    """
    with suppress(OSError):
        sysctl.write(f"net/ipv6/conf/{host_ifname}/disable_ipv6", "1")


def _add_address(pod: IPRoute, index: int, address: IPAddress, *, ifname: str) -> None:
    try:
        add_address(pod, index, address)
    except NetlinkError as error:
        raise PycniError(
            f"cannot give {ifname} the address {address}: {os.strerror(error.code)}",
            hint="IPv6 is off in the pod: check net.ipv6.conf, and that `mtu` is 1280 or more"
            if address.version == 6
            else "",
        ) from error


def _add_default_route(pod: IPRoute, index: int, gateway: IPAddress, ifname: str) -> bool:
    try:
        pod.route(
            "add",
            dst="default",
            gateway=str(gateway),
            oif=index,
            flags=["onlink"],
            family=socket.AF_INET if gateway.version == 4 else socket.AF_INET6,
        )
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            return False
        raise PycniError(
            f"cannot give {ifname} the default route via {gateway}: {os.strerror(error.code)}"
        ) from error
    return True
