# SPDX-License-Identifier: Apache-2.0
"""Links on top of another one: macvlan and ipvlan. And what a node needs to know about a link that
is in the namespace of a pod: the number that the namespace has here.

Sources: linux/if_link.h, linux/net_namespace.h, linux/neighbour.h; rtnetlink(7).
"""

from __future__ import annotations

import struct

from pycni.cluster import IPAddress
from pycni.kernel.links import (
    IFINFOMSG,
    IFLA_IPVLAN_MODE,
    IFLA_LINK,
    IFLA_TARGET_NETNSID,
    End,
    pack_made,
)
from pycni.kernel.netlink import (
    FAMILIES,
    U16,
    attribute,
    attributes,
    number,
    pack_mac,
    read_number,
)

RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29
RTM_NEWNSID, RTM_DELNSID, RTM_GETNSID = 88, 89, 90

IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE = 1, 4
IPVLAN_MODE_L2, IPVLAN_MODE_L3 = 0, 1

RTGENMSG = struct.Struct("=Bxxx")
"""struct rtgenmsg: family; padded."""
NETNSA_NSID, NETNSA_FD = 1, 3
NSID_UNKNOWN = 0xFFFFFFFF
"""NETNSA_NSID_NOT_ASSIGNED, -1; in a request: any number that is free."""

NDMSG = struct.Struct("=BxxxiHBB")
"""struct ndmsg: family, index, state, flags, type."""
NUD_PERMANENT = 0x80
NDA_DST, NDA_LLADDR = 1, 2


def pack_macvlan(child: End, *, parent: int) -> bytes:
    """An RTM_NEWLINK for a macvlan in bridge mode on the link with the index `parent`, which is in
    the socket's namespace. Without an MTU it gets the parent's."""
    mode = number(IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE)
    return pack_made("macvlan", child, mode) + number(IFLA_LINK, parent)


def pack_ipvlan(child: End, *, parent: int, mode: int) -> bytes:
    """An RTM_NEWLINK for an ipvlan, as pack_macvlan; `mode` is IPVLAN_MODE_*.

    The kernel gives the mode to all that the parent has (ipvlan_link_new,
    drivers/net/ipvlan/ipvlan_main.c): callers make sure that they have it.
    """
    data = attribute(IFLA_IPVLAN_MODE, U16.pack(mode))
    return pack_made("ipvlan", child, data) + number(IFLA_LINK, parent)


def pack_orphan(kind: str) -> bytes:
    """An RTM_NEWLINK for a link of a kind that needs another link, without one.

    EINVAL if the kernel has the kind, else EOPNOTSUPP.
    """
    return pack_made(kind, End("pycni-none"))


def pack_deletion(ifindex: int, netnsid: int) -> bytes:
    """An RTM_DELLINK for a link in the namespace with that number here."""
    return IFINFOMSG.pack(0, 0, ifindex, 0, 0) + number(IFLA_TARGET_NETNSID, netnsid)


def pack_number_question(netns_fd: int) -> bytes:
    """An RTM_GETNSID for the number of a namespace."""
    return RTGENMSG.pack(0) + number(NETNSA_FD, netns_fd)


def pack_numbering(netns_fd: int) -> bytes:
    """An RTM_NEWNSID that gives a namespace a number. EEXIST if it has one."""
    return pack_number_question(netns_fd) + number(NETNSA_NSID, NSID_UNKNOWN)


def read_number_answer(body: bytes) -> int | None:
    """The number in an answer to RTM_GETNSID; None: the namespace has none."""
    found = read_number(dict(attributes(body, RTGENMSG.size))[NETNSA_NSID])
    return None if found == NSID_UNKNOWN else found


def pack_neighbour(ifindex: int, address: IPAddress, mac: str = "") -> bytes:
    """An RTM_NEWNEIGH for an entry that stays as it is; without a MAC an RTM_DELNEIGH."""
    head = NDMSG.pack(FAMILIES[address.version], ifindex, NUD_PERMANENT, 0, 0)
    named = head + attribute(NDA_DST, address.packed)
    return named + attribute(NDA_LLADDR, pack_mac(mac)) if mac else named
