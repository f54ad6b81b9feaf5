# SPDX-License-Identifier: Apache-2.0
"""ICMP errors that tell this host that a packet was too big for its path: "fragmentation needed"
and "packet too big".

rtnetlink has no event for a path MTU that the kernel learnt. These errors are what it learns from,
so they are the event. Only a hint: the kernel says what it made of one (kernel/fib.py).
Sources: RFC 1191 4, RFC 4443 3.2; raw(7), linux/icmp.h, linux/icmpv6.h.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address

from loader.closing import Closing
from pycni.cluster import IPAddress

SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1
ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, ICMPV6_PKT_TOOBIG = 3, 4, 2
ONLY_UNREACHABLE = struct.pack("=I", ~(1 << ICMP_DEST_UNREACH) & 0xFFFFFFFF)
ONLY_TOO_BIG = struct.pack("=8I", ~(1 << ICMPV6_PKT_TOOBIG) & 0xFFFFFFFF, *[0xFFFFFFFF] * 7)
"""A bit that is set keeps a type away."""
IP4_HEADER, IP6_HEADER, ICMP_HEADER = 20, 40, 8
ROOM = 2048
"""Bytes. No error is longer: RFC 1812 4.3.2.3, RFC 4443 2.4."""
AT_ONCE = 4096
"""Errors that one call reads at most."""


class IcmpErrors(Closing):
    """The errors that reach this network namespace. Raises PermissionError without CAP_NET_RAW."""

    def __init__(self) -> None:
        self._sockets: dict[socket.socket, int] = {}
        with ExitStack() as undo:
            undo.callback(self.close)
            self._open(4, socket.AF_INET, socket.IPPROTO_ICMP)
            self._open(6, socket.AF_INET6, socket.IPPROTO_ICMPV6)
            undo.pop_all()

    def close(self) -> None:
        """Close the sockets."""
        for one in self._sockets:
            one.close()

    def filenos(self) -> list[int]:
        """Descriptors that are readable when there are errors."""
        return [one.fileno() for one in self._sockets]

    def take(self, port: int) -> set[IPAddress]:
        """Where the packets went that the errors since the last call are about, of those that were
        UDP to `port`, or IPIP."""
        found: set[IPAddress] = set()
        for one, version in self._sockets.items():
            for _ in range(AT_ONCE):
                try:
                    data = one.recv(ROOM)
                except BlockingIOError:
                    break
                address = read_error4(data, port) if version == 4 else read_error6(data, port)
                if address is not None:
                    found.add(address)
        return found

    def _open(self, version: int, family: int, protocol: int) -> None:
        try:
            made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError:
            if version == 6 and not socket.has_dualstack_ipv6():
                return  # a kernel without IPv6
            raise
        self._sockets[made] = version
        made.settimeout(0)  # do not block
        if version == 4:
            made.setsockopt(SOL_RAW, ICMP_FILTER, ONLY_UNREACHABLE)
        else:
            made.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, ONLY_TOO_BIG)


def read_error4(data: bytes, port: int) -> IPAddress | None:
    """The destination of the UDP packet to `port`, or of the IPIP packet, that an IPv4 packet with
    an ICMP error is about; None for any other packet."""
    at = _header4(data)
    quoted = at + ICMP_HEADER
    upper = quoted + _header4(data[quoted:])
    if (
        len(data) < upper + 4
        or data[at : at + 2] != bytes((ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED))
        or not _is_between_nodes(data[quoted + 9], data[upper : upper + 4], port)
    ):
        return None
    return IPv4Address(data[quoted + 16 : quoted + 20])


def read_error6(data: bytes, port: int) -> IPAddress | None:
    """The same of an ICMPv6 message, without the IPv6 header before it (RFC 3542 3)."""
    quoted = ICMP_HEADER
    upper = quoted + IP6_HEADER
    if (
        len(data) < upper + 4
        or data[0] != ICMPV6_PKT_TOOBIG
        or not _is_between_nodes(data[quoted + 6], data[upper : upper + 4], port)
    ):
        return None
    return IPv6Address(data[quoted + 24 : quoted + 40])


def _is_between_nodes(protocol: int, upper: bytes, port: int) -> bool:
    """Of a packet by its IP protocol, and the first 4 bytes behind its IP header."""
    if protocol == socket.IPPROTO_UDP:
        return upper[2:] == port.to_bytes(2, "big")
    return protocol in (socket.IPPROTO_IPIP, socket.IPPROTO_IPV6)


def _header4(data: bytes) -> int:
    """Bytes of an IPv4 header. A truncated one counts as full: the callers look at the length."""
    return (data[0] & 15) * 4 if data else IP4_HEADER
