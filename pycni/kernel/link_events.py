# SPDX-License-Identifier: Apache-2.0
"""Events that links are gone, each with all that the kernel knew about the link.

The kernel sends one to every listener once neither the link nor its peer is in any list any more
(unregister_netdevice_many, net/core/dev.c). Source: rtnetlink(7).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from pycni.kernel import netlink_socket
from pycni.kernel.children import RTM_DELNSID
from pycni.kernel.event_socket import Event, EventSocket
from pycni.kernel.links import RTM_DELLINK, Link, read_link
from pycni.kernel.netlink import messages
from pycni.kernel.netlink_socket import BUFFER, RTMGRP_LINK, RTMGRP_NSID


def subscribe() -> socket.socket:
    """A socket that hears every change of a link of the calling thread's namespace, from now on.

    For who waits for one event. Errors: netlink_socket.subscribe.
    """
    return netlink_socket.subscribe(RTMGRP_LINK)


def gone(events: socket.socket) -> Iterator[Link]:
    """The links that are gone, as the next datagram says. Waits for one. Raises OSError."""
    return _gone(events.recv(BUFFER))


def subscribe_to_ends() -> EventSocket:
    """A socket that hears of each link that goes, and of each namespace with a number here, for who
    follows them all. Errors: the same."""
    return EventSocket(RTMGRP_LINK | RTMGRP_NSID, kinds=(RTM_DELLINK, RTM_DELNSID))


def tell_of_namespaces(events: Iterable[Event]) -> bool:
    """Whether a namespace that had a number here is gone by these events."""
    return any(kind == RTM_DELNSID for event in events for kind, *_ in messages(event.data))


def ended(events: Iterable[Event]) -> Iterator[Link]:
    """The links that are gone by these events."""
    for event in events:
        yield from _gone(event.data)


def _gone(data: bytes) -> Iterator[Link]:
    for kind, _, _, body in messages(data):
        # AF_BRIDGE: a port left a bridge, and still is a link
        if kind == RTM_DELLINK and body[0] == socket.AF_UNSPEC:
            yield read_link(body)
