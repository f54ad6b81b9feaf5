"""Deleting a link without the wait that follows.

A link is gone for everybody once the kernel says so (link_events.py). The kernel then holds the
request until the last user of the link is done (netdev_run_todo, net/core/dev.c), which takes three
quarters of the time: a thread waits for that.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
from contextlib import suppress

from pyroute2.netlink.exceptions import NetlinkError

from pycni.kernel import link_events
from pycni.kernel.rtnl import Rtnl


def delete_link(ifindex: int) -> bool:
    """Delete a link of the calling thread's namespace; False if it is gone already.

    Returns when the kernel has told of it, or has answered. Raises NetlinkError.
    """
    failed: list[BaseException] = []

    def delete() -> None:
        with answering:
            try:
                with Rtnl() as rtnl:
                    rtnl.link("del", index=ifindex)
            except BaseException as error:
                failed.append(error)

    with link_events.subscribe() as events:
        answered, answering = socket.socketpair()
        with answered:
            threading.Thread(target=delete).start()
            if _is_told(events, ifindex, until=answered):
                return True
    for error in failed:
        if isinstance(error, NetlinkError) and error.code == errno.ENODEV:
            return False
        raise error
    return True


def _is_told(events: socket.socket, ifindex: int, *, until: socket.socket) -> bool:
    """Whether an event says that the link is gone; False if `until` ends before."""
    poll = select.poll()
    poll.register(events, select.POLLIN)
    poll.register(until, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if events.fileno() not in ready:
            return False
        with suppress(OSError):  # ENOBUFS: messages were lost, perhaps this one
            if any(link["index"] == ifindex for link in link_events.gone(events)):
                return True
