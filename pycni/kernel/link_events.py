# SPDX-License-Identifier: Apache-2.0
"""Events that links are gone, each with all that the kernel knew about the link.

The kernel sends one to every listener once neither the link nor its peer is in any list any more
(unregister_netdevice_many, net/core/dev.c). Source: rtnetlink(7).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from pycni.kernel import netlink_socket
from pycni.kernel.links import RTM_DELLINK, Link, read_link
from pycni.kernel.netlink import messages
from pycni.kernel.netlink_socket import BUFFER, RTMGRP_LINK


def subscribe() -> socket.socket:
    """A socket that hears every change of a link of the calling thread's namespace, from now on.

    Errors: netlink_socket.subscribe.
    """
    return netlink_socket.subscribe(RTMGRP_LINK)


def gone(events: socket.socket) -> Iterator[Link]:
    """The links that are gone, as the next datagram says. Waits for one. Raises OSError."""
    for kind, _, _, body in messages(events.recv(BUFFER)):
        # AF_BRIDGE: a port left a bridge, and still is a link
        if kind == RTM_DELLINK and body[0] == socket.AF_UNSPEC:
            yield read_link(body)
