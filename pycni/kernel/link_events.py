"""The kernel's word that links are gone, with all that it knew of them.

One message each for whoever listens, sent when neither the link nor its peer is in any list any
more (unregister_netdevice_many, net/core/dev.c). Source: rtnetlink(7).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from pycni.kernel.netlink import (
    RTM_DELLINK,
    Link,
    messages,
    read_link,
)

RTMGRP_LINK = 1

ROOM = 4 << 20
"""Bytes of messages that may wait to be read, some thousands."""

BUFFER = 1 << 16
"""Bytes: no datagram is longer."""

SO_RCVBUFFORCE = 33
"""asm-generic/socket.h; SO_RCVBUF beyond net.core.rmem_max."""


def subscribe() -> socket.socket:
    """A socket that hears of every change of a link of the calling thread's namespace, from now on.

    Reading it gives ENOBUFS, once, if messages were lost. Raises PermissionError without
    CAP_NET_ADMIN.
    """
    return subscribe_to(RTMGRP_LINK)


def subscribe_to(groups: int) -> socket.socket:
    """The same for any RTMGRP_* (linux/rtnetlink.h), or-ed."""
    events = socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        events.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        events.bind((0, groups))
    except OSError:
        events.close()
        raise
    return events


def gone(events: socket.socket) -> Iterator[Link]:
    """The links that the next datagram says are gone; waits for one. Raises OSError."""
    for kind, _, body in messages(events.recv(BUFFER)):
        if kind == RTM_DELLINK and body[0] == socket.AF_UNSPEC:  # AF_BRIDGE: a port left a bridge
            yield read_link(body)
