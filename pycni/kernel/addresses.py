"""Addresses of interfaces. Sources: linux/rtnetlink.h, linux/if_addr.h; rtnetlink(7)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Interface, IPv6Interface
from typing import NamedTuple

from pycni.cluster import IPAddress
from pycni.kernel.netlink import FAMILIES, attribute

RTM_NEWADDR, RTM_DELADDR = 20, 21

IFADDRMSG = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_NODAD = 0x02


class Address(NamedTuple):
    """An address that an interface has."""

    ifindex: int
    interface: IPv4Interface | IPv6Interface
    """With its prefix length."""
    is_global: bool = True
    """Whether its scope is the world."""

    @property
    def ip(self) -> IPAddress:
        """The bare address."""
        return self.interface.ip


def pack_address(ifindex: int, address: IPAddress, *, prefixlen: int) -> bytes:
    """An RTM_NEWADDR or RTM_DELADDR.

    IPv6 skips duplicate address detection (RFC 4862, 5.4). It would cost 1.7 s, and nobody else
    has an address that is given here.
    """
    flags = IFA_F_NODAD if address.version == 6 else 0
    head = IFADDRMSG.pack(FAMILIES[address.version], prefixlen, flags, 0, ifindex)
    return head + attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)
