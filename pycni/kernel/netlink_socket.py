# SPDX-License-Identifier: Apache-2.0
"""Sockets of rtnetlink: one that asks, and one that hears events.

Both belong to the network namespace of the thread that makes them. Source: netlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from array import array
from collections.abc import Sequence

from pycni.kernel import event_filter
from pycni.kernel.event_filter import Pattern
from pycni.kernel.netlink import (
    ERROR,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    NetlinkError,
    message,
    messages,
)

RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_TC = 0x1, 0x4, 0x8
RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE = 0x10, 0x40, 0x80
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_IPV6_RULE = 0x100, 0x400, 1 << 18
RTMGRP_IPV4_NETCONF, RTMGRP_IPV6_NETCONF = 1 << 23, 1 << 24
RTMGRP_NSID, RTMGRP_NEXTHOP = 1 << 27, 1 << 31
"""Groups of events: linux/rtnetlink.h."""

MSG_TRUNC = int(socket.MSG_TRUNC)
"""As a number: its operators are much faster than those of an enum."""
KERNEL = 0
"""The kernel's netlink port."""
BUFFER = 1 << 16
"""Bytes. No datagram of the kernel is longer."""
EVENT_ROOM = 4 << 20
"""Bytes of events that may wait to be read: some thousand events."""
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_GET_STRICT_CHK = 270, 1, 12
SO_RCVBUFFORCE = 33
"""asm-generic/socket.h. Unlike SO_RCVBUF it may exceed net.core.rmem_max."""
SO_ATTACH_FILTER = 26
"""asm-generic/socket.h."""
SOCK_FPROG = struct.Struct("@HP")
"""struct sock_fprog of linux/filter.h."""
BATCH = 64
"""Requests in one datagram, so that the answers fit the socket's default receive buffer."""
SHORT = 8
"""Datagrams, of 32 KB at most."""
DUMPS = 5
"""How often a listing is asked for that changes while it is read."""


class NetlinkSocket:
    """Sends requests and reads their answers. Only one thread at a time may use it.

    Every method raises OSError (EMSGSIZE) if an answer is cut.
    """

    def __init__(self, made: socket.socket | None = None) -> None:
        """Takes the socket `made` over, or makes one."""
        self._socket = _open() if made is None else made
        self._sequence = 0

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket. A second call does nothing."""
        self._socket.close()

    def request(self, kind: int, flags: int, body: bytes) -> bytes:
        """Send a request; returns the body of the answer, b"" for a mere acknowledgement.

        `flags` are in addition to NLM_F_REQUEST. The kernel has answered when send(2) returns.
        Raises NetlinkError.
        """
        self._sequence += 1
        self._socket.send(message(kind, flags | NLM_F_REQUEST, self._sequence, body))
        while True:
            for answer in self._receive():
                if answer.sequence != self._sequence:
                    continue
                if answer.kind != NLMSG_ERROR:
                    return answer.body
                _check(answer)
                return b""

    def requests(self, kind: int, flags: int, bodies: list[bytes]) -> list[bytes | None]:
        """Send many requests; returns the body of each answer, None for a refusal.

        An acknowledgement counts as a refusal here: ask for none where the answers matter.
        """
        found: list[bytes | None] = []
        for start in range(0, len(bodies), BATCH):
            found += self._batch(kind, flags | NLM_F_REQUEST, bodies[start : start + BATCH])
        return found

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all answers to a request for a listing. Raises NetlinkError.

        A listing that changes while it is read is read again, up to DUMPS times.
        """
        for _ in range(DUMPS):
            found, is_consistent = self._dump(kind, body)
            if is_consistent:
                break
        return found

    def is_short(self, kind: int, body: bytes) -> bool:
        """Whether the answers to a request for a listing fit into SHORT datagrams. The others are
        not read: close the socket. Raises NetlinkError."""
        self._sequence += 1
        self._socket.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, body))
        for _ in range(SHORT):
            for answer in self._receive():
                if answer.sequence == self._sequence and answer.kind in (NLMSG_DONE, NLMSG_ERROR):
                    _check(answer)
                    return True
        return False

    def dump_strictly(self, kind: int, body: bytes) -> list[bytes]:
        """As `dump`, but the kernel lists only what matches all that `body` says."""
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        try:
            return self.dump(kind, body)
        finally:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 0)

    def _batch(self, kind: int, flags: int, bodies: list[bytes]) -> list[bytes | None]:
        first = self._sequence + 1
        self._sequence += len(bodies)
        numbers = range(first, self._sequence + 1)
        packed = (
            message(kind, flags, sequence, body)
            for sequence, body in zip(numbers, bodies, strict=True)
        )
        self._socket.send(b"".join(packed))
        answers: dict[int, bytes | None] = {}
        while len(answers) < len(bodies):
            for answer in self._receive():
                if answer.sequence in numbers:
                    is_error = answer.kind == NLMSG_ERROR
                    answers[answer.sequence] = None if is_error else answer.body
        return [answers[sequence] for sequence in numbers]

    def _dump(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        """The bodies, and whether the listing was the same from the first to the last."""
        self._sequence += 1
        self._socket.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, body))
        found: list[bytes] = []
        is_consistent = True
        while True:
            for answer in self._receive():
                if answer.sequence != self._sequence:
                    continue
                if answer.flags & NLM_F_DUMP_INTR:
                    is_consistent = False
                if answer.kind in (NLMSG_DONE, NLMSG_ERROR):
                    _check(answer)
                    return found, is_consistent
                found.append(answer.body)

    def _receive(self) -> list[Message]:
        """The messages of the next datagram; none if it is not the kernel's."""
        data, _, flags, sender = self._socket.recvmsg(BUFFER)
        if flags & MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "an answer of rtnetlink is cut")
        return list(messages(data)) if sender[0] == KERNEL else []


def subscribe(
    groups: int, *, kinds: Sequence[int] = (), without: Sequence[Pattern] = ()
) -> socket.socket:
    """A socket that hears the events of `groups` (RTMGRP_*, or-ed) from now on: of these `kinds`
    (RTM_*) only, if any are given, and `without` those that fit a pattern (event_filter.py).

    Once after events were lost, reading it raises OSError with ENOBUFS. Raises PermissionError
    without CAP_NET_ADMIN.
    """
    events = _open()
    try:
        events.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, EVENT_ROOM)
        if kinds or without:
            attach_filter(events, event_filter.program(kinds=kinds, without=without))
        events.bind((0, groups))
    except OSError:
        events.close()
        raise
    return events


def attach_filter(events: socket.socket, program: bytes) -> None:
    """Have a socket hear only what a classic BPF program lets pass (event_filter.INSTRUCTION)."""
    code = array("B", program)
    address, size = code.buffer_info()
    count = size // event_filter.INSTRUCTION.size
    events.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, SOCK_FPROG.pack(count, address))


def _open() -> socket.socket:
    return socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )


def _check(answer: Message) -> None:
    """Raise the error that an NLMSG_ERROR or NLMSG_DONE has."""
    code = ERROR.unpack_from(answer.body)[0] if len(answer.body) >= ERROR.size else 0
    if code:
        raise NetlinkError(-code)
