# SPDX-License-Identifier: Apache-2.0
"""sock_diag: UDP sockets that are connected, listed, and destroyed. sock_diag(7).

Of the calling thread's network namespace. A destroyed socket stays open, and its next call fails
with ECONNABORTED (udp_abort, net/ipv4/udp.c). Source: linux/inet_diag.h, linux/sock_diag.h;
net/ipv4/udp_diag.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from pycni.cluster import IPAddress
from pycni.kernel.netlink import (
    ERROR,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NetlinkError,
    message,
    messages,
)

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
CONNECTED = 1 << 1
"""The state TCP_ESTABLISHED, which a connected UDP socket has, too."""
REQUEST = struct.Struct("=BBBxI")
"""struct inet_diag_req_v2 before its `id`: family, protocol, extensions, states."""
ANSWER = struct.Struct("=BBBB")
"""struct inet_diag_msg before its `id`."""
IDENTITY = struct.Struct("!HH16s16s4x8s")
"""struct inet_diag_sockid: ports, addresses, interface, cookie in two words of the machine's order,
the lower one first."""
COOKIE = struct.Struct("=II")
BUFFER = 1 << 16
"""Bytes. No datagram of the kernel is longer."""


@dataclass(frozen=True)
class ConnectedSocket:
    """A UDP socket and its peer."""

    cookie: int
    address: IPAddress
    """Of a socket of IPv6 that speaks IPv4: a v4-mapped one."""
    port: int
    family: int
    identity: bytes
    """What names it to the kernel."""


class SockDiag:
    """A sock_diag socket. Only one thread at a time may use it; a refusal raises NetlinkError."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def connected_udp(self) -> list[ConnectedSocket]:
        """Of both families."""
        return [
            read(body)
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in self._ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, bytes(IDENTITY.size))
        ]

    def refuse_unable(self) -> None:
        """Raise NetlinkError EOPNOTSUPP if the kernel destroys no sockets: it is asked to destroy
        one that cannot be, which has a cookie of zero."""
        try:
            self._ask(SOCK_DESTROY, NLM_F_ACK, socket.AF_INET, bytes(IDENTITY.size))
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise

    def destroy(self, one: ConnectedSocket) -> None:
        """NetlinkError ENOENT or ESTALE if it is gone, EOPNOTSUPP if the kernel destroys none."""
        self._ask(SOCK_DESTROY, NLM_F_ACK, one.family, one.identity)

    def _ask(self, kind: int, flags: int, family: int, identity: bytes) -> list[bytes]:
        self._sequence += 1
        body = REQUEST.pack(family, socket.IPPROTO_UDP, 0, CONNECTED) + identity
        self._socket.send(message(kind, NLM_F_REQUEST | flags, self._sequence, body))
        found: list[bytes] = []
        while True:
            for answer in messages(self._socket.recv(BUFFER)):
                if answer.sequence != self._sequence:
                    continue
                if answer.kind not in (NLMSG_DONE, NLMSG_ERROR):
                    found.append(answer.body)
                    continue
                if code := -ERROR.unpack_from(answer.body)[0]:
                    raise NetlinkError(code)
                return found


def read(body: bytes) -> ConnectedSocket:
    """A struct inet_diag_msg."""
    identity = body[ANSWER.size : ANSWER.size + IDENTITY.size]
    _, port, _, raw, cookie = IDENTITY.unpack(identity)
    family = body[0]
    low, high = COOKIE.unpack(cookie)
    address = IPv4Address(raw[:4]) if family == socket.AF_INET else IPv6Address(raw)
    return ConnectedSocket(high << 32 | low, address, port, family, identity)
