# SPDX-License-Identifier: Apache-2.0
"""Nexthop objects: ways that several routes share (ip-nexthop(8)).

By default a listing of routes says the ways of an object, too. With the kernel parameter
net/ipv4/nexthop_compat_mode at 0 it says the object's number only. Source: linux/nexthop.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pycni.kernel.netlink import attributes, read_address, read_number
from pycni.kernel.routes import RTNH_F_DEAD, RTNH_F_LINKDOWN, Hop

RTM_GETNEXTHOP = 106

NHMSG = struct.Struct("=BBBxI")
"""struct nhmsg: family, scope, protocol, flags."""
NHA_ID, NHA_GROUP, NHA_OIF, NHA_GATEWAY = 1, 2, 5, 6
NEXTHOP_GRP = struct.Struct("=IBBH")
"""struct nexthop_grp: number of a member, its weight, the weight's upper bits, unused."""


@dataclass(frozen=True)
class Nexthop:
    """A way, or a group of others by their numbers."""

    number: int
    hop: Hop | None
    members: tuple[int, ...] = ()


def pack_nexthop_listing() -> bytes:
    """An RTM_GETNEXTHOP for all objects."""
    return NHMSG.pack(0, 0, 0, 0)


def read_nexthop(body: bytes) -> Nexthop:
    """The object that an RTM_NEWNEXTHOP is about. Raises ValueError if it is garbled."""
    flags = NHMSG.unpack_from(body)[3]
    found = dict(attributes(body, NHMSG.size))
    hop = None
    if NHA_OIF in found:
        gateway = read_address(found[NHA_GATEWAY]) if NHA_GATEWAY in found else None
        dead = bool(flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN))
        hop = Hop(read_number(found[NHA_OIF]), gateway, dead)
    group = found.get(NHA_GROUP, b"")
    members = tuple(member for member, _, _, _ in NEXTHOP_GRP.iter_unpack(group))
    return Nexthop(read_number(found[NHA_ID]), hop, members)


def ways(number: int, objects: Mapping[int, Nexthop]) -> tuple[Hop, ...]:
    """The ways of the object with a number; none if it is gone, or leads nowhere. Pure."""
    one = objects.get(number)
    if one is None:
        return ()
    parts: Iterable[Nexthop] = (
        (one,)
        if not one.members
        else (objects[member] for member in one.members if member in objects)
    )
    return tuple(part.hop for part in parts if part.hop is not None)
