# SPDX-License-Identifier: Apache-2.0
"""Addresses of interfaces. Sources: linux/rtnetlink.h, linux/if_addr.h; rtnetlink(7)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import NamedTuple

from pycni.cluster import IPAddress
from pycni.kernel.netlink import FAMILIES, attribute, attributes, read_number
from pycni.kernel.routes import RT_SCOPE_UNIVERSE

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22

IFADDRMSG = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_SECONDARY = IFA_F_TEMPORARY = 0x01
"""One bit: an IPv4 address after the first of its network; an IPv6 address of RFC 8981."""
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x02, 0x08, 0x20, 0x40


class Address(NamedTuple):
    """An address that an interface has."""

    ifindex: int
    interface: IPv4Interface | IPv6Interface
    """With its prefix length."""
    is_global: bool = True
    """Whether its scope is the world."""
    flags: int = 0
    """IFA_F_*."""

    @property
    def ip(self) -> IPAddress:
        """The bare address."""
        return self.interface.ip

    @property
    def is_usable(self) -> bool:
        """Whether it is known that nobody else has it (RFC 4862, 5.4)."""
        return not self.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)

    @property
    def is_duplicate(self) -> bool:
        """Whether duplicate address detection found another machine that has it."""
        return bool(self.flags & IFA_F_DADFAILED)

    @property
    def is_stable(self) -> bool:
        """Whether it is usable and meant to stay: neither deprecated nor temporary."""
        is_temporary = self.ip.version == 6 and self.flags & IFA_F_TEMPORARY
        return self.is_usable and not is_temporary and not self.flags & IFA_F_DEPRECATED

    @property
    def is_secondary(self) -> bool:
        """Of IPv4: whether the link has an older one in the same network."""
        return self.ip.version == 4 and bool(self.flags & IFA_F_SECONDARY)

    @property
    def is_single(self) -> bool:
        """Whether its network is the address alone, as that of a virtual IP."""
        return self.interface.network.prefixlen == self.ip.max_prefixlen


def read_address_message(body: bytes) -> Address | None:
    """The address that an RTM_NEWADDR or RTM_DELADDR is about; None if it is no IP address.

    Raises ValueError if it is garbled.
    """
    family, prefixlen, flags, scope, ifindex = IFADDRMSG.unpack_from(body)
    found = dict(attributes(body, IFADDRMSG.size))
    # on a link to one peer, IFA_ADDRESS is the peer's
    raw = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if family not in FAMILIES.values() or raw is None:
        return None
    if IFA_FLAGS in found:
        flags = read_number(found[IFA_FLAGS])
    return Address(ifindex, ip_interface((raw, prefixlen)), scope == RT_SCOPE_UNIVERSE, flags)


def pack_address_question() -> bytes:
    """An RTM_GETADDR for all addresses."""
    return IFADDRMSG.pack(0, 0, 0, 0, 0)


def pack_address(ifindex: int, address: IPAddress, *, prefixlen: int) -> bytes:
    """An RTM_NEWADDR or RTM_DELADDR.

    IPv6 skips duplicate address detection (RFC 4862, 5.4). It would cost 1.7 s, and nobody else
    has an address that is given here.
    """
    flags = IFA_F_NODAD if address.version == 6 else 0
    head = IFADDRMSG.pack(FAMILIES[address.version], prefixlen, flags, 0, ifindex)
    return head + attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)
