# SPDX-License-Identifier: Apache-2.0
"""Deletes a link without the wait that follows.

Nobody can find or use a link any more once the kernel sends the event that it is gone
(link_events.py). But the kernel answers the request only after the last user of the link is done
(netdev_run_todo, net/core/dev.c), and this wait is three quarters of the time. A thread does it.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

from pycni.kernel import link_events
from pycni.kernel.rtnl import Rtnl


def delete_link(ifindex: int) -> bool:
    """Delete a link of the calling thread's namespace; False if it is gone already.

    Returns after the event or the answer, whichever comes first. Raises NetlinkError.
    """
    deleted: list[bool] = []
    failed: list[BaseException] = []

    def delete() -> None:
        with answering:
            try:
                with Rtnl() as rtnl:
                    deleted.append(rtnl.delete_link(ifindex))
            except BaseException as error:
                failed.append(error)

    with link_events.subscribe() as events:
        answered, answering = socket.socketpair()
        with answered:
            threading.Thread(target=delete).start()
            if _is_told(events, ifindex, until=answered):
                return True
    if failed:
        raise failed[0]
    return deleted[0]


def _is_told(events: socket.socket, ifindex: int, *, until: socket.socket) -> bool:
    """Wait for the event that the link is gone; False if the other end of `until` closes first."""
    poll = select.poll()
    poll.register(events, select.POLLIN)
    poll.register(until, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if events.fileno() not in ready:
            return False
        with suppress(OSError):  # ENOBUFS: events were lost, perhaps this one
            if any(link.ifindex == ifindex for link in link_events.gone(events)):
                return True
