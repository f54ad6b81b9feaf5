# SPDX-License-Identifier: Apache-2.0
"""The routes by one link that have an MTU. The kernel selects the link's: a node may have a million
others.

Sources: linux/rtnetlink.h; "strict checking" in rtnetlink(7), Linux 4.20.
"""

from __future__ import annotations

import errno
import socket
from contextlib import closing
from ipaddress import ip_network

from pycni.cluster import IPNetwork
from pycni.kernel.netlink import (
    FAMILIES,
    NetlinkError,
    attributes,
    number,
    read_address,
    read_number,
)
from pycni.kernel.netlink_socket import NetlinkSocket
from pycni.kernel.routes import (
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_METRICS,
    RTA_OIF,
    RTAX_MTU,
    RTM_GETROUTE,
    RTMSG,
)

SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
RTM_F_CLONED = 0x200
"""Flag of what the kernel has learnt itself."""
NO_TABLE = (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)
"""The family has no routes yet, or the kernel has no IPv6."""


def route_mtus(ifindex: int) -> dict[IPNetwork, int]:
    """The MTU of each route of the main table by a link that has one, in bytes, by destination.

    Of the calling thread's network namespace. Raises NetlinkError.
    """
    found: dict[IPNetwork, int] = {}
    for version, family in FAMILIES.items():
        for body in _routes_by(ifindex, family):
            route = _read(body, ifindex, version)
            if route is not None:
                found[route[0]] = route[1]
    return found


def _routes_by(ifindex: int, family: int) -> list[bytes]:
    asked = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0) + number(RTA_OIF, ifindex)
    made = socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    with closing(NetlinkSocket(made)) as asker:
        made.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        try:
            return asker.dump(RTM_GETROUTE, asked)
        except NetlinkError as error:
            if error.errno not in NO_TABLE:
                raise
            return []


def _read(body: bytes, ifindex: int, version: int) -> tuple[IPNetwork, int] | None:
    """Of an RTM_NEWROUTE by that link and of that IP version, if it has an MTU."""
    family, bits, *_, flags = RTMSG.unpack_from(body)
    found = dict(attributes(body, RTMSG.size))
    metrics = dict(attributes(found.get(RTA_METRICS, b"")))
    if (
        family != FAMILIES[version]
        or flags & RTM_F_CLONED
        or RTAX_MTU not in metrics
        or read_number(found.get(RTA_OIF, bytes(4))) != ifindex
    ):
        return None
    anywhere = bytes(4 if version == 4 else 16)
    network = ip_network((read_address(found.get(RTA_DST, anywhere)), bits))
    return network, read_number(metrics[RTAX_MTU])
