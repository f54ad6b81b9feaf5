"""Small steps on links that the node's, the pods' and the lab's share. All through a given IPRoute,
or Rtnl.

Flag values are of linux/if.h, linux/if_addr.h and linux/if_link.h.
"""

from __future__ import annotations

import errno
from ipaddress import IPv6Address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pycni.cluster import IPAddress
from pycni.kernel.rtnl import NO_IPV6_ADDRESS

IFF_UP = 0x1
IFF_NOARP = 0x80
IFA_F_NODAD = 0x02


def find_link(ipr: IPRoute, ifname: str) -> Any | None:
    """The link message of an interface, or None."""
    try:
        for link in ipr.link("get", ifname=ifname):
            return link
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
    return None


def delete_link(ipr: IPRoute, ifname: str) -> bool:
    """Delete an interface; False if it is gone already."""
    try:
        for index in ipr.link_lookup(ifname=ifname):
            ipr.link("del", index=index)
            return True
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
    return False


def add_address(ipr: IPRoute, index: int, address: IPAddress, *, prefixlen: int = 0) -> None:
    """Add an address, as a host address unless `prefixlen` says otherwise.

    IPv6 skips duplicate address detection (RFC 4862, 5.4): it would cost 1.7 s, and every address
    given here is given once.
    """
    flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
    ipr.addr(
        "add",
        index=index,
        address=str(address),
        prefixlen=prefixlen or address.max_prefixlen,
        **flags,
    )


def link_local(mac: str) -> IPv6Address:
    """Modified EUI-64 link-local address of a MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    )


def generate_no_address(ipr: IPRoute, index: int) -> None:
    """Keep the kernel from making a link-local address, with its DAD and MLD, when the link rises.

    A link that IPv6 does not use at all (EAFNOSUPPORT: MTU below 1280, or IPv6 off) makes none.
    """
    try:
        ipr.link("set", index=index, IFLA_AF_SPEC=NO_IPV6_ADDRESS)
    except NetlinkError as error:
        if error.code != errno.EAFNOSUPPORT:
            raise
