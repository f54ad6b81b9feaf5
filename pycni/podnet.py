"""A pod's link: the veth pair, its ends configured in both network namespaces.

Functions here run in the node's namespace and reach the pod's through a descriptor; they never
switch a thread's namespace. The host end carries the lease (lease.py).
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pycni.cluster import IPAddress
from pycni.errors import InterfaceExists, PycniError
from pycni.lease import AttachmentKey, Lease, find_link, is_orphan
from pycni.maps import GATEWAY_MAC

IFF_UP = 0x1
IFA_F_NODAD = 0x02
IN6_ADDR_GEN_MODE_NONE = 1


def setup(ipr: IPRoute, netns_fd: int, *, key: AttachmentKey, lease: Lease, mtu: int) -> Lease:
    """Create the veth pair, its pod's end down in the pod's namespace; returns the taken lease.

    Raises InterfaceExists if either name is taken, PycniError for any other refusal of the kernel.
    Nothing of the link is left behind on an error.
    """
    _create(ipr, netns_fd, key=key, mac=lease.mac, mtu=mtu)
    try:
        (ifindex,) = ipr.link_lookup(ifname=key.host_ifname)
        ipr.link(
            "set",
            index=ifindex,
            flags=IFF_UP,
            change=IFF_UP,
            IFLA_IFALIAS=lease.alias(),
            IFLA_AF_SPEC=_no_generated_address(),
        )
    except BaseException:
        teardown(ipr, key.host_ifname)
        raise
    return replace(lease, host_ifname=key.host_ifname, ifindex=ifindex)


def teardown(ipr: IPRoute, host_ifname: str) -> bool:
    """Delete the pair by its host end; False if it is gone already."""
    found = ipr.link_lookup(ifname=host_ifname)
    if not found:
        return False
    try:
        ipr.link("del", index=found[0])
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        return False
    return True


def teardown_orphan(ipr: IPRoute, key: AttachmentKey) -> bool:
    """Delete what a killed ADD of this attachment left; a link that is not ours stays."""
    link = find_link(ipr, key.host_ifname)
    return link is not None and is_orphan(link) and teardown(ipr, key.host_ifname)


def configure(netns_fd: int, ifname: str, *, lease: Lease, gateways: tuple[IPAddress, ...]) -> None:
    """Give the pod's end its addresses and default routes, and set it up.

    Addresses are /32 and /128: every other address lies behind the gateway, on-link by decree. The
    IPv6 ones skip duplicate address detection (RFC 4862, 5.4), which would cost 1.7 s: the node
    gives each address to one pod only. The link-local address is ours too, for the same reason.
    """
    with IPRoute(netns=f"/proc/self/fd/{netns_fd}") as pod:
        (index,) = pod.link_lookup(ifname=ifname)
        pod.link("set", index=index, IFLA_AF_SPEC=_no_generated_address())
        pod.link("set", index=index, flags=IFF_UP, change=IFF_UP)
        for address in lease.addresses:
            try:
                _add_address(pod, index, address)
            except NetlinkError as error:
                raise PycniError(
                    f"cannot give {ifname} the address {address}: {os.strerror(error.code)}",
                    hint="is IPv6 disabled in the pod (net.ipv6.conf.all.disable_ipv6)?"
                    if address.version == 6
                    else "",
                ) from error
        if any(address.version == 6 for address in lease.addresses):
            _add_address(pod, index, link_local(lease.mac), prefixlen=64)
        for gateway in gateways:
            pod.route(
                "add",
                dst="default",
                gateway=str(gateway),
                oif=index,
                flags=["onlink"],
                family=socket.AF_INET if gateway.version == 4 else socket.AF_INET6,
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


def _add_address(pod: IPRoute, index: int, address: IPAddress, prefixlen: int = 0) -> None:
    if isinstance(address, IPv4Address):
        pod.addr("add", index=index, address=str(address), prefixlen=prefixlen or 32)
    else:
        pod.addr(
            "add",
            index=index,
            address=str(address),
            prefixlen=prefixlen or 128,
            flags=IFA_F_NODAD,
        )


def _no_generated_address() -> dict[str, Any]:
    """Attributes that keep the kernel from making a link-local address with its DAD and MLD."""
    mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE)]}
    return {"attrs": [("AF_INET6", mode)]}
