# SPDX-License-Identifier: Apache-2.0
"""What rtnetlink tells of a namespace, as values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface

IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40
"""linux/if_addr.h."""


@dataclass(frozen=True)
class Link:
    """An interface; `peer` is the index IFLA_LINK names, which for a veth is the other end."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    master: int
    peer: int
    alias: str


@dataclass(frozen=True)
class Address:
    """An address of an interface, as `192.0.2.1/24`."""

    index: int
    address: str
    flags: int

    @property
    def tentative(self) -> bool:
        """Duplicate address detection still runs, or has failed: it cannot be used."""
        return bool(self.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED))

    @property
    def link_local(self) -> bool:
        return ip_interface(self.address).ip.is_link_local


@dataclass(frozen=True)
class Route:
    """A route; `dst` is a network, `gateway` and `source` are addresses or empty."""

    family: int
    dst: str
    gateway: str
    index: int
    table: int
    kind: int
    source: str = ""
    metric: int = 0
