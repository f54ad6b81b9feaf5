# SPDX-License-Identifier: Apache-2.0
"""Raw sockets that make the kernel learn what the paths of IPIP carry.

The kernel takes the ICMP error "too big" for a path only if it knows who sent the packet that the
error quotes. Without a tunnel device nobody answers for IPIP, but a raw socket of the quoted
protocol does (raw_err() in net/ipv4/raw.c, rawv6_err() in net/ipv6/raw.c). Nothing is sent or read
here: a filter keeps all packets away (socket(7)).
"""

from __future__ import annotations

import socket
import struct
from array import array
from contextlib import ExitStack

from loader.closing import Closing

PROTOCOLS = (socket.IPPROTO_IPIP, socket.IPPROTO_IPV6)
SO_ATTACH_FILTER = 26
"""asm-generic/socket.h"""
IPV6_RECVERR = 25
"""linux/in6.h. Of IPv6, a socket that is not connected takes no error without it."""
LITTLE = 0
"""Bytes of room: the kernel takes its least. Errors that find none are lost after they counted."""
SOCK_FPROG = struct.Struct("@HP")
RETURN_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""struct sock_filter of linux/filter.h: BPF_RET | BPF_K, no byte."""


class TunnelSockets(Closing):
    """The sockets of this network namespace, of one IP version (4 or 6). Raises PermissionError
    without CAP_NET_RAW, or OSError."""

    def __init__(self, version: int) -> None:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with ExitStack() as undo:
            for protocol in PROTOCOLS:
                made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
                undo.enter_context(made)
                _shut(made)
                if version == 6:
                    made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            self._owned = undo.pop_all()

    def close(self) -> None:
        """Close the sockets."""
        self._owned.close()


def _shut(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE)
    code = array("B", RETURN_NOTHING)
    address, _ = code.buffer_info()
    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, SOCK_FPROG.pack(1, address))
