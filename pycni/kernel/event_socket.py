# SPDX-License-Identifier: Apache-2.0
"""Events of rtnetlink as they pile up: of many about one thing, the last.

A pod may change its link thousands of times a second. So what waits is read together, and a
datagram about a thing replaces the one before, unread. Source: rtnetlink(7), netlink(7).
"""

from __future__ import annotations

import errno
import mmap
import socket
import sys
from collections.abc import Sequence
from select import select
from typing import NamedTuple, Self

from pycni.kernel import netlink_socket
from pycni.kernel.event_filter import Pattern
from pycni.kernel.netlink_socket import BUFFER

SOL_NETLINK, NETLINK_LISTEN_ALL_NSID = 270, 8
LINKS, QDISCS = 16, 36
"""First of the four RTM_* kinds about links, and about qdiscs: linux/rtnetlink.h."""
READS = 20_000
"""Datagrams of one `take`: more than the socket has room for."""


class Event(NamedTuple):
    """One datagram."""

    data: bytes
    elsewhere: bool = False
    """Whether it is about another network namespace, one that has a number in this."""


class EventSocket:
    """What happens from now on in the calling thread's namespace; used by one thread.

    `groups`, `kinds` and `without` are as in netlink_socket.subscribe, which says what is raised.
    With `everywhere`, also in all namespaces that have a number in this one.
    """

    def __init__(
        self,
        groups: int,
        *,
        kinds: Sequence[int] = (),
        without: Sequence[Pattern] = (),
        everywhere: bool = False,
    ) -> None:
        self._socket = netlink_socket.subscribe(groups, kinds=kinds, without=without)
        self._socket.settimeout(0)
        if everywhere:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
        self._buffer = memoryview(mmap.mmap(-1, BUFFER, flags=mmap.MAP_PRIVATE))
        """Takes as much memory as was ever written to it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, readable when something can be taken."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket. A second call does nothing."""
        self._socket.close()

    def wait(self, seconds: float) -> bool:
        """Until something can be taken, or the time is over; whether something can."""
        return bool(select([self._socket], [], [], seconds)[0])

    def take(self) -> list[Event] | None:
        """What happened since the last call, in order; None if events were lost. Never waits.

        Of several datagrams about one link, or one qdisc of a link, only the last is there. Raises
        OSError.
        """
        found: dict[tuple[bytes, ...], Event] = {}
        lost = False
        for _ in range(READS):
            try:
                size, ancillary, _, _ = self._socket.recvmsg_into(
                    [self._buffer], socket.CMSG_SPACE(4)
                )
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            data = bytes(self._buffer[:size])
            place = next((nsid for _, kind, nsid in ancillary if kind == NETLINK_LISTEN_ALL_NSID),
                         b"")  # fmt: skip
            key = (place, *subject(data))
            found.pop(key, None)
            found[key] = Event(data, bool(ancillary))
        return None if lost else list(found.values())


def subject(data: bytes) -> tuple[bytes, ...]:
    """What a datagram is about, read from fixed places: a link, a qdisc, or else only itself.

    Family and index are at the same places in struct ifinfomsg and struct tcmsg; the parent of a
    qdisc is 12 bytes into the latter.
    """
    kind = int.from_bytes(data[4:6], sys.byteorder) & ~3
    if kind == LINKS:
        return b"link", data[16:17], data[20:24]
    if kind == QDISCS:
        return b"qdisc", data[20:24], data[28:32]
    return (data,)
