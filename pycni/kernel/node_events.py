# SPDX-License-Identifier: Apache-2.0
"""Events about everything that a node is made of, by subject: something changed, look again.

What an event says is not believed further than that: whoever hears it looks at the kernel. Sockets
belong to the network namespace of the thread that makes them, the mounts to that of the process.
Sources: rtnetlink(7), linux/rtnetlink.h, linux/netfilter/nf_tables.h; proc(5) for
/proc/self/mountinfo.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple, Self

from pycni.kernel import nft_tables
from pycni.kernel.event_filter import HOST_END_AS_IT_SHALL_BE
from pycni.kernel.event_socket import EventSocket
from pycni.kernel.netlink import Message, attributes, messages, port_of, read_text
from pycni.kernel.netlink_socket import (
    BUFFER,
    NETLINK_ADD_MEMBERSHIP,
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_NETCONF,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV4_RULE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_NETCONF,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_IPV6_RULE,
    RTMGRP_LINK,
    RTMGRP_TC,
    SOL_NETLINK,
)

GROUPS = (
    RTMGRP_LINK | RTMGRP_TC | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
    | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_IPV6_RULE
    | RTMGRP_IPV4_NETCONF | RTMGRP_IPV6_NETCONF
)  # fmt: skip

NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7
NEW_GENERATION = 10 << 8 | 15
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN: the last message of each transaction."""
NFGENMSG = 4
"""Bytes of struct nfgenmsg."""
NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME = 2, 3

NETCONFMSG, NETCONFA_IFINDEX = 4, 1
"""linux/netconf.h: bytes of struct netconfmsg; the index is negative for "all" and "default"."""

IFINDEX = struct.Struct("=4xi")
"""Where ifinfomsg, ifaddrmsg and tcmsg have the interface index."""
_ignored: set[int] = set()
"""Threads of this process, by the numbers of the machine."""

LONGEST_NAME = 15
"""Bytes of a process's name, proc(5) comm."""


class Subject(Enum):
    """What may have changed."""

    LINK = auto()
    ADDRESS = auto()
    ROUTE = auto()
    RULE = auto()
    QDISC = auto()
    """And filters."""
    PARAMETER = auto()
    """A kernel parameter that decides about forwarding."""
    TABLES = auto()
    """nftables."""
    MOUNT = auto()
    STORE = auto()
    """The cluster store. The kernel has no events of this."""


SUBJECTS = {
    16: Subject.LINK, 17: Subject.LINK,
    20: Subject.ADDRESS, 21: Subject.ADDRESS,
    24: Subject.ROUTE, 25: Subject.ROUTE,
    32: Subject.RULE, 33: Subject.RULE,
    36: Subject.QDISC, 37: Subject.QDISC, 44: Subject.QDISC, 45: Subject.QDISC,
    80: Subject.PARAMETER, 81: Subject.PARAMETER,
}  # fmt: skip
"""By message type, RTM_*."""


class Notice(NamedTuple):
    """One event."""

    subject: Subject
    ifindex: int = 0
    """Of links, addresses, qdiscs and parameters; 0 or negative: not of one interface."""
    by: str = ""
    """Name and process ID of who did it, if that is known and was not the listener itself."""
    is_own: bool = False
    """Whether the listener itself is known to have done it."""


def ignore_this_thread() -> None:
    """Have this process hear nothing of what the calling thread, which does not end before it, does
    to nftables. Raises OSError."""
    _ignored.add(nft_tables.this_thread())


class NodeEvents:
    """All these events since this was made. Raises PermissionError without CAP_NET_ADMIN."""

    def __init__(self) -> None:
        self._routing = EventSocket(GROUPS, without=[HOST_END_AS_IT_SHALL_BE])
        try:
            self._tables = _subscribe_to_nftables()
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._routing.close()
            raise
        self._listener = 0
        with suppress(OSError):  # a kernel without nftables
            self._listener = nft_tables.this_thread()
        self._poll = select.poll()
        self._tables.settimeout(0)  # do not block
        for readable in (self._routing, self._tables):
            self._poll.register(readable, select.POLLIN)
        self._poll.register(self._mounts, select.POLLPRI)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._routing.close()
        self._tables.close()
        os.close(self._mounts)

    def wait(self, seconds: float) -> list[Notice] | None:
        """The events that are there, or the first to come within that time.

        None if events were lost: look at everything.
        """
        found: list[Notice] = []
        try:
            for descriptor, _ in self._poll.poll(seconds * 1000):
                if descriptor == self._mounts:
                    os.pread(self._mounts, 1, 0)
                    found.append(Notice(Subject.MOUNT))
                elif descriptor == self._tables.fileno():
                    found += _read(self._tables, self._listener)
                elif (happened := self._routing.take()) is None:
                    return None
                else:
                    found += (one for event in happened for one in _of_rtnetlink(event.data))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return None
        return found


def _subscribe_to_nftables() -> socket.socket:
    made = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    try:
        made.bind((0, 0))
        made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
    except OSError:
        made.close()
        raise
    return made


def _read(tables: socket.socket, listener: int) -> list[Notice]:
    """Everything that waits. Raises OSError with ENOBUFS if some was lost.

    Then it is read all the same: until nothing waits, the kernel drops what happens next without
    another error (net/netlink/af_netlink.c, NETLINK_S_CONGESTED).
    """
    found: list[Notice] = []
    lost: OSError | None = None
    while True:
        try:
            data = tables.recv(BUFFER)
        except BlockingIOError:
            if lost is not None:
                raise lost from None
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            lost = error
            continue
        for message in messages(data):
            found += _of_nftables(message, listener)


def _of_rtnetlink(data: bytes) -> Iterator[Notice]:
    for message in messages(data):
        subject = SUBJECTS.get(message.kind)
        if subject is None:
            continue
        ifindex = 0
        if subject in (Subject.LINK, Subject.QDISC, Subject.ADDRESS):
            ifindex = IFINDEX.unpack_from(message.body)[0]
        elif subject is Subject.PARAMETER:
            found = dict(attributes(message.body, NETCONFMSG))
            ifindex = int.from_bytes(found.get(NETCONFA_IFINDEX, b""), sys.byteorder, signed=True)
        port = port_of(data)
        yield Notice(subject, ifindex, _name(port), is_own=port == os.getpid())


def _of_nftables(message: Message, listener: int) -> Iterator[Notice]:
    if message.kind == NEW_GENERATION:
        found = dict(attributes(message.body, NFGENMSG))
        pid = int.from_bytes(found.get(NFTA_GEN_PROC_PID, b""), "big")
        if pid in _ignored:
            return
        name = read_text(found.get(NFTA_GEN_PROC_NAME, b""))
        if pid == listener:
            yield Notice(Subject.TABLES, is_own=True)
            return
        yield Notice(Subject.TABLES, by=f"{name} (pid {pid})" if pid else "")


def _name(port: int) -> str:
    """The process that has a netlink port, if it still runs: a port is mostly a process ID."""
    if not port or port == os.getpid():
        return ""
    try:
        comm = Path(f"/proc/{port}/comm").read_text().strip()[:LONGEST_NAME]
    except (OSError, UnicodeDecodeError):
        return ""
    return f"{comm} (pid {port})"
