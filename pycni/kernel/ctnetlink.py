# SPDX-License-Identifier: Apache-2.0
"""ctnetlink: the kernel's table of tracked connections, listed with filters and deleted from.

A socket belongs to the network namespace of the thread that makes it. This module does not know
why a connection is deleted: conntrack.py does. Source: linux/netfilter/nfnetlink_conntrack.h;
net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from pycni.cluster import IPAddress
from pycni.kernel.netlink import (
    ERROR,
    FAMILIES,
    NLATTR,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NetlinkError,
    attribute,
    attributes,
    message,
    messages,
    nested,
    number,
)

NETLINK_NETFILTER = 12
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 0x101, 0x102
"""With NFNL_SUBSYS_CTNETLINK, 1, in the high byte (linux/netfilter/nfnetlink.h)."""
NFGENMSG = struct.Struct(">BBH")
"""struct nfgenmsg: address family, version, a resource in network byte order."""
NFNETLINK_V1 = 1
"""A version other than 0 makes a request to delete mean its address family only."""

CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 2, 12, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
FILTER_IP_SRC, FILTER_PROTO_NUM, FILTER_DST_PORT = 1 << 0, 1 << 3, 1 << 5
"""CTA_FILTER_F_*, net/netfilter/nf_internals.h."""
PORT = struct.Struct(">H")

SOURCES = (CTA_IP_V4_SRC, CTA_IP_V6_SRC)
DESTINATIONS = (CTA_IP_V4_DST, CTA_IP_V6_DST)
SIZES = {4: 4, 6: 16}
"""Bytes of an address."""
SOURCE_AT = 3 * NLATTR.size
"""Of a tuple's first byte: the headers of the tuple, of its addresses, of the first of them."""

BUFFER = 1 << 16
"""Bytes. No datagram of the kernel is longer."""
BATCH = 64
"""Requests in one datagram, so that the answers fit the socket's receive buffer."""
NO_FILTER = (errno.EINVAL, errno.EOPNOTSUPP)
"""How a kernel refuses a filter for a deletion, which came with Linux 6.12."""


@dataclass(frozen=True)
class Entry:
    """One connection, with the bytes that name it to the kernel. Addresses are packed."""

    client: bytes
    """Who began it."""
    asked: bytes
    """The address that the client asked, before any translation."""
    answering: bytes
    """The address that answers, after all translation."""
    protocol: int
    port: int
    """The port that the client asked; 0 if the protocol has none."""
    name: bytes
    """Attributes of a request to delete this connection, and no later one like it."""


class Ctnetlink:
    """A ctnetlink socket. Only one thread at a time may use it; a refusal raises NetlinkError."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def entries(self, version: int) -> Iterator[Entry]:
        """All connections of an IP version."""
        return map(_read, self._list(version))

    def entries_of(self, addresses: Collection[IPAddress]) -> Iterator[Entry]:
        """The connections that some addresses, of one IP version, have begun or answer."""
        version = next(iter(addresses)).version
        wanted = {address.packed for address in addresses}
        size = SIZES[version]

        def may_be(body: bytes) -> bool:
            original, reply = _sides(body)
            client, answering = original + SOURCE_AT, reply + SOURCE_AT
            return (
                body[client : client + size] in wanted
                or body[answering : answering + size] in wanted
            )

        for entry in self._search(version, b"", may_be):
            if entry.client in wanted or entry.answering in wanted:
                yield entry

    def entries_to(self, version: int, protocol: int, ports: Collection[int]) -> Iterator[Entry]:
        """The connections to some ports of an IP protocol, by number."""
        at = _port_at(SIZES[version])
        packed = {PORT.pack(port) for port in ports}

        def may_be(body: bytes) -> bool:
            return body[at : at + PORT.size] in packed

        port = next(iter(ports)) if len(ports) == 1 else 0
        for entry in self._search(version, asked_for(protocol, port), may_be):
            if entry.port in ports:
                yield entry

    def delete(self, version: int, entries: Sequence[Entry]) -> None:
        """Delete connections; no error if one has ended meanwhile."""
        head = NFGENMSG.pack(FAMILIES[version], 0, 0)
        for start in range(0, len(entries), BATCH):
            batch = [head + entry.name for entry in entries[start : start + BATCH]]
            for error in self._delete(batch):
                if error.errno != errno.ENOENT:
                    raise error

    def delete_where(self, version: int, only: bytes) -> bool:
        """Delete the connections that pass the filter; False if this kernel has no such request.

        An older kernel takes the request for that of one connection, and finds it incomplete.
        """
        head = NFGENMSG.pack(FAMILIES[version], NFNETLINK_V1, 0)
        for error in self._delete([head + only]):
            if error.errno in NO_FILTER:
                return False
            raise error
        return True

    def _search(
        self, version: int, only: bytes, may_be: Callable[[bytes], bool]
    ) -> Iterator[Entry]:
        """Those of the entries that pass the kernel's filter `only` which `may_be` sought.

        The table may have a hundred thousand others, and to read one takes 20 µs. So `may_be` looks
        at the bytes, where the kernel has put the same things ever since; whether this one does, is
        found out by the first.
        """
        is_known = None
        for body in self._list(version, only):
            if is_known is None:
                is_known = _is_in_order(body, SIZES[version])
            if not is_known or may_be(body):
                yield _read(body)

    def _list(self, version: int, only: bytes = b"") -> Iterator[bytes]:
        """The body of each entry."""
        self._sequence += 1
        head = NFGENMSG.pack(FAMILIES[version], 0, 0)
        kind, flags = IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_DUMP
        self._socket.send(message(kind, flags, self._sequence, head + only))
        while True:
            for kind, _, sequence, body in messages(self._socket.recv(BUFFER)):
                if sequence != self._sequence:
                    continue
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    _check(body)
                    return
                yield body

    def _delete(self, bodies: Sequence[bytes]) -> list[NetlinkError]:
        """Send requests in one datagram; returns the refusals."""
        first = self._sequence + 1
        self._sequence += len(bodies)
        waiting = set(range(first, self._sequence + 1))
        flags = NLM_F_REQUEST | NLM_F_ACK
        self._socket.send(
            b"".join(
                message(IPCTNL_MSG_CT_DELETE, flags, sequence, body)
                for sequence, body in enumerate(bodies, first)
            )
        )
        refusals = []
        while waiting:
            for answer in messages(self._socket.recv(BUFFER)):
                if answer.sequence in waiting:
                    waiting.remove(answer.sequence)
                    if code := _code(answer.body):
                        refusals.append(NetlinkError(code))
        return refusals


def asked_for(protocol: int, port: int = 0) -> bytes:
    """A filter: connections of an IP protocol, by number, and if it is given to a port."""
    parts = [attribute(CTA_PROTO_NUM, bytes([protocol]))]
    flags = FILTER_PROTO_NUM
    if port:
        parts.append(attribute(CTA_PROTO_DST_PORT, PORT.pack(port)))
        flags |= FILTER_DST_PORT
    sought = nested(CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, *parts))
    return sought + nested(CTA_FILTER, number(CTA_FILTER_ORIG_FLAGS, flags))


def begun_by(address: IPAddress) -> bytes:
    """A filter: connections that an IPv4 address has begun.

    There is none for IPv6: the kernel's takes all addresses but the one that is given, from its
    beginning in Linux 5.8 to 6.18 at least (ctnetlink_filter_match_tuple tests ipv6_addr_cmp() the
    wrong way round).
    """
    return _from(address, CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS)


def answered_by(address: IPAddress) -> bytes:
    """A filter: connections that an IPv4 address answers."""
    return _from(address, CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS)


def _from(address: IPAddress, side: int, flags: int) -> bytes:
    sought = nested(side, nested(CTA_TUPLE_IP, attribute(CTA_IP_V4_SRC, address.packed)))
    return sought + nested(CTA_FILTER, number(flags, FILTER_IP_SRC))


def _read(body: bytes) -> Entry:
    found = dict(attributes(body, NFGENMSG.size))
    original = dict(attributes(found[CTA_TUPLE_ORIG]))
    reply = dict(attributes(found[CTA_TUPLE_REPLY]))
    ends = dict(attributes(original[CTA_TUPLE_IP]))
    protocol = dict(attributes(original[CTA_TUPLE_PROTO]))
    name = nested(CTA_TUPLE_ORIG, found[CTA_TUPLE_ORIG])
    for kind in (CTA_ID, CTA_ZONE):
        if kind in found:
            name += attribute(kind, found[kind])
    return Entry(
        client=_pick(ends, SOURCES),
        asked=_pick(ends, DESTINATIONS),
        answering=_pick(dict(attributes(reply[CTA_TUPLE_IP])), SOURCES),
        protocol=protocol[CTA_PROTO_NUM][0],
        port=PORT.unpack(protocol.get(CTA_PROTO_DST_PORT, b"\0\0"))[0],
        name=name,
    )


def _pick(ends: dict[int, bytes], kinds: tuple[int, int]) -> bytes:
    return next(ends[kind] for kind in kinds if kind in ends)


def _is_in_order(body: bytes, size: int) -> bool:
    """Whether attributes come in the usual order: the original tuple, the reply tuple; in each the
    addresses, the source first, then protocol and ports."""
    entry = _read(body)
    original, reply = _sides(body)
    client, answering, port = original + SOURCE_AT, reply + SOURCE_AT, _port_at(size)
    return (
        body[client : client + size] == entry.client
        and body[answering : answering + size] == entry.answering
        and (not entry.port or body[port : port + PORT.size] == PORT.pack(entry.port))
    )


def _sides(body: bytes) -> tuple[int, int]:
    """Where the two tuples begin."""
    original = NFGENMSG.size
    return original, original + (NLATTR.unpack_from(body, original)[0] + 3 & ~3)


def _port_at(size: int) -> int:
    """Where the port is that the client asked, behind two addresses of `size` bytes, the protocol
    and the client's port."""
    address, word = NLATTR.size + size, NLATTR.size + 4
    return NFGENMSG.size + 2 * NLATTR.size + 2 * address + NLATTR.size + 2 * word + NLATTR.size


def _code(body: bytes) -> int:
    """The errno in an NLMSG_ERROR or NLMSG_DONE; 0 if there is none."""
    return -ERROR.unpack_from(body)[0] if len(body) >= ERROR.size else 0


def _check(body: bytes) -> None:
    if code := _code(body):
        raise NetlinkError(code)
