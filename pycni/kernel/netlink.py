"""Netlink messages and attributes as bytes; opens no socket.

Numbers are in the machine's byte order, addresses in the network's. Layouts: linux/netlink.h,
linux/rtnetlink.h, linux/if_link.h; netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

NLMSG_ERROR = 2
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length with the header, type, flags, sequence number, port."""

IFINFOMSG = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS = (
    1,
    3,
    4,
    16,
    18,
    20,
)
IFLA_LINK, IFLA_QDISC, IFLA_LINK_NETNSID = 5, 6, 37
IFLA_INFO_KIND = 1

OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
"""RFC 2863, in the order of linux/if.h."""

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

U32 = struct.Struct("=I")
_NLATTR = struct.Struct("=HH")

Link = dict[Any, Any]
"""A link with what pycni reads of one, under pyroute2's names: index, flags, ifname, address,
ifalias, mtu, operstate, the kind as ("linkinfo", "kind"), qdisc (the root's kind); and of a veth
link (index of its peer) and link_netnsid (number of the peer's namespace, if that is another). All
but the first two may be missing."""


def attribute(kind: int, value: bytes) -> bytes:
    """One struct nlattr with its value, padded to 4 bytes."""
    length = _NLATTR.size + len(value)
    return _NLATTR.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """An attribute with a closing zero, as names are."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, U32.pack(value))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute. Raises ValueError if `data` is not made of them."""
    while data:
        length, kind = _NLATTR.unpack_from(data) if len(data) >= _NLATTR.size else (0, 0)
        if not _NLATTR.size <= length <= len(data):
            raise ValueError(f"an attribute of {length} bytes in {len(data)}")
        yield kind & NLA_TYPE_MASK, data[_NLATTR.size : length]
        data = data[length + 3 & ~3 :]


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message. Raises ValueError like `attributes`."""
    while data:
        length, kind, _, sequence, _ = HEADER.unpack_from(data) if len(data) >= 16 else (0,) * 5
        if not HEADER.size <= length <= len(data):
            raise ValueError(f"a message of {length} bytes in {len(data)}")
        yield kind, sequence, data[HEADER.size : length]
        data = data[length + 3 & ~3 :]


def read_link(body: bytes) -> Link:
    """The link that a message of type RTM_NEWLINK or RTM_DELLINK tells of."""
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    link: Link = {"index": index, "flags": flags}
    for kind, value in attributes(body[IFINFOMSG.size :]):
        if kind == IFLA_IFNAME:
            link["ifname"] = _text(value)
        elif kind == IFLA_ADDRESS:
            link["address"] = value.hex(":")
        elif kind == IFLA_IFALIAS:
            link["ifalias"] = _text(value)
        elif kind == IFLA_MTU:
            (link["mtu"],) = U32.unpack(value)
        elif kind == IFLA_OPERSTATE:
            link["operstate"] = OPERSTATES[value[0]]
        elif kind == IFLA_QDISC:
            link["qdisc"] = _text(value)
        elif kind == IFLA_LINK:
            (link["link"],) = U32.unpack(value)
        elif kind == IFLA_LINK_NETNSID:
            (link["link_netnsid"],) = U32.unpack(value)
        elif kind == IFLA_LINKINFO:
            for inner, name in attributes(value):
                if inner == IFLA_INFO_KIND:
                    link["linkinfo", "kind"] = _text(name)
    return link


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
