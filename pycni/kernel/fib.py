"""What the kernel would do with a packet to an address: its routes, neighbours and links, and word
of every change.

Raw rtnetlink, because one question has to cost microseconds: a node asks for thousands of others at
once. Reads only, but for `confirm`. Sockets are of the network namespace of the thread that makes
them. Layouts: rtnetlink(7), include/uapi/linux/{netlink,rtnetlink,neighbour,if_link}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from select import select
from types import TracebackType
from typing import Self

from pycni.cluster import IPAddress

NLMSGHDR = struct.Struct("=IHHII")
RTATTR = struct.Struct("=HH")
RTMSG = struct.Struct("=8BI")
NDMSG = struct.Struct("=BxxxiHBB")
IFINFOMSG = struct.Struct("=BxHiII")

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_METRICS, RTA_VIA = 1, 2, 4, 5, 8, 18
RTAX_MTU = 2
RTN_UNICAST = 1
NDA_DST, NDA_LLADDR = 1, 2
NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
"""Reachable, stale, delay, probe, noarp, permanent: states that the kernel sends in (NUD_VALID)."""
NUD_WRITTEN = 0x40 | 0x80
"""Noarp, permanent."""
NTF_USE = 1
IFLA_ADDRESS, IFLA_MTU, IFLA_EXT_MASK = 1, 4, 29
RTEXT_FILTER_SKIP_STATS = 8
IFF_UP, IFF_RUNNING = 0x1, 0x40
ARPHRD_ETHER = 1
AF = {4: socket.AF_INET, 6: socket.AF_INET6}

RTMGRP_LINK, RTMGRP_NEIGH = 0x1, 0x4
RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE = 0x10, 0x40, 0x80
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 0x100, 0x400
ADDRESS_GROUPS = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
GROUPS = (
    ADDRESS_GROUPS | RTMGRP_LINK | RTMGRP_NEIGH
    | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_IPV6_ROUTE
)  # fmt: skip

BUFFER = 1 << 16
EVENT_BUFFER = 1 << 22
"""Bytes the kernel may queue of events before it drops some and says so."""
QUESTIONS_AT_ONCE = 64
"""So that the answers to one message fit the socket's default buffer."""

Neighbours = dict[tuple[int, IPAddress], str]
"""(ifindex, address) -> MAC, of those the kernel would send to."""


@dataclass(frozen=True)
class Path:
    """The way to an address: through which interface, to which neighbour on it.

    `mtu` is the route's, in bytes; 0 if it has none of its own.
    """

    ifindex: int
    neighbour: IPAddress
    mtu: int


@dataclass(frozen=True)
class Link:
    """An interface; `mac` is empty for one that is not Ethernet."""

    ifindex: int
    up: bool
    mtu: int
    mac: str


@dataclass(frozen=True)
class NeighbourChange:
    """`mac` is None when the kernel no longer sends to it."""

    ifindex: int
    address: IPAddress
    mac: str | None


@dataclass(frozen=True)
class OtherChange:
    """Of a link (then `ifindex` is its), or of addresses, routes and rules (0)."""

    ifindex: int = 0


Change = NeighbourChange | OtherChange


class Fib:
    """Questions to the kernel, and its events."""

    def __init__(self) -> None:
        self._asker = _open()
        self._events = _open()
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._asker.close()
        self._events.close()

    def subscribe(self, groups: int = GROUPS) -> None:
        """Have `changes` tell of what happens from now on."""
        self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, EVENT_BUFFER)
        self._events.bind((0, groups))
        self._events.setblocking(False)

    def wait(self, seconds: float, *others: int) -> None:
        """Until there are changes, one of the descriptors is readable, or the time is over."""
        select([self._events.fileno(), *others], [], [], seconds)

    def changes(self) -> list[Change] | None:
        """What has happened since the last call; None: too much, ask for everything again."""
        found: list[Change] = []
        try:
            while True:
                found += _changes(self._events.recv(BUFFER))
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return None

    def paths(self, addresses: Iterable[IPAddress], source: IPAddress) -> dict[IPAddress, Path]:
        """The ways to addresses from one of ours; those that cannot be reached are left out.

        Where the kernel has several paths, this is the one it takes for these two addresses.
        """
        found: dict[IPAddress, Path] = {}
        asked = list(addresses)
        for start in range(0, len(asked), QUESTIONS_AT_ONCE):
            batch = asked[start : start + QUESTIONS_AT_ONCE]
            body = [_route_question(address, source) for address in batch]
            for address, answer in zip(batch, self._ask(RTM_GETROUTE, body), strict=True):
                path = None if answer is None else _path(answer, address)
                if path is not None:
                    found[address] = path
        return found

    def links(self, indexes: Iterable[int]) -> dict[int, Link]:
        """Interfaces by index; those that are gone are left out."""
        asked = list(indexes)
        skip = _attribute(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_SKIP_STATS))
        bodies = [IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0) + skip for index in asked]
        answers = self._ask(RTM_GETLINK, bodies)
        return {
            index: _link(answer)
            for index, answer in zip(asked, answers, strict=True)
            if answer is not None
        }

    def neighbours(self) -> Neighbours:
        """All that the kernel would send to."""
        found: Neighbours = {}
        body = NDMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        for payload in self._dump(RTM_GETNEIGH, body):
            change = _neighbour(payload)
            if change is not None and change.mac is not None:
                found[change.ifindex, change.address] = change.mac
        return found

    def confirm(self, neighbours: Iterable[tuple[int, IPAddress]]) -> None:
        """Have the kernel make sure, as if it had sent them packets, that neighbours are there.

        One that it no longer knows stays unknown: nothing is created. One that somebody has written
        stays as written: told of its use, Linux since 5.16 forgets it and looks for it (neigh_add,
        net/core/neighbour.c).
        """
        asked = list(neighbours)
        for start in range(0, len(asked), QUESTIONS_AT_ONCE):
            batch = asked[start : start + QUESTIONS_AT_ONCE]
            answers = self._ask(RTM_GETNEIGH, [_neighbour_request(*one) for one in batch])
            found = [
                _neighbour_request(*one, flags=NTF_USE)
                for one, answer in zip(batch, answers, strict=True)
                if answer is not None and not NDMSG.unpack_from(answer)[2] & NUD_WRITTEN
            ]
            self._ask(RTM_NEWNEIGH, found, flags=NLM_F_ACK)

    def _ask(self, kind: int, bodies: list[bytes], *, flags: int = 0) -> list[bytes | None]:
        """One answer to each, None for a refusal."""
        if not bodies:  # an empty message is an error
            return []
        first = self._sequence + 1
        self._sequence += len(bodies)
        messages = [
            _message(kind, NLM_F_REQUEST | flags, first + number, body)
            for number, body in enumerate(bodies)
        ]
        self._asker.send(b"".join(messages))
        answers: dict[int, bytes | None] = {}
        while len(answers) < len(bodies):
            for got, sequence, payload in _messages(self._asker.recv(BUFFER)):
                answers[sequence] = None if got == NLMSG_ERROR else payload
        return [answers[first + number] for number in range(len(bodies))]

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        self._asker.send(_message(kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, body))
        while True:
            for got, _, payload in _messages(self._asker.recv(BUFFER)):
                if got == NLMSG_DONE:
                    return
                if got == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, os.strerror(code))
                yield payload


def _open() -> socket.socket:
    return socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, flags, sequence, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence, payload) of each message of a datagram."""
    at = 0
    while at + NLMSGHDR.size <= len(data):
        length, kind, _, sequence, _ = NLMSGHDR.unpack_from(data, at)
        yield kind, sequence, data[at + NLMSGHDR.size : at + length]
        at += length + 3 & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    length = RTATTR.size + len(value)
    return RTATTR.pack(length, kind) + value + bytes(-length % 4)


def _attributes(data: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at + RTATTR.size <= len(data):
        length, kind = RTATTR.unpack_from(data, at)
        found[kind & 0x3FFF] = data[at + RTATTR.size : at + length]  # NLA_TYPE_MASK
        at += max(length + 3 & ~3, RTATTR.size)
    return found


def _address(raw: bytes) -> IPAddress:
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little" if struct.pack("=H", 1)[0] else "big")


def _route_question(address: IPAddress, source: IPAddress) -> bytes:
    bits = address.max_prefixlen
    return (
        RTMSG.pack(AF[address.version], bits, bits, 0, 0, 0, 0, 0, 0)
        + _attribute(RTA_DST, address.packed)
        + _attribute(RTA_SRC, source.packed)
    )


def _path(payload: bytes, address: IPAddress) -> Path | None:
    if RTMSG.unpack_from(payload)[7] != RTN_UNICAST:
        return None
    attributes = _attributes(payload, RTMSG.size)
    if RTA_OIF not in attributes:
        return None
    neighbour = address
    if RTA_GATEWAY in attributes:
        neighbour = _address(attributes[RTA_GATEWAY])
    elif RTA_VIA in attributes:  # struct rtvia: a family, then an address of it
        neighbour = _address(attributes[RTA_VIA][2:])
    metrics = _attributes(attributes.get(RTA_METRICS, b""), 0)
    mtu = _number(metrics.get(RTAX_MTU, b""))
    return Path(_number(attributes[RTA_OIF]), neighbour, mtu)


def _link(payload: bytes) -> Link:
    _, kind, index, flags, _ = IFINFOMSG.unpack_from(payload)
    attributes = _attributes(payload, IFINFOMSG.size)
    running = flags & IFF_UP and flags & IFF_RUNNING
    mac = attributes.get(IFLA_ADDRESS, b"").hex(":") if kind == ARPHRD_ETHER else ""
    return Link(index, bool(running), _number(attributes[IFLA_MTU]), mac)


def _neighbour_request(ifindex: int, address: IPAddress, *, flags: int = 0) -> bytes:
    head = NDMSG.pack(AF[address.version], ifindex, 0, flags, 0)
    return head + _attribute(NDA_DST, address.packed)


def _neighbour(payload: bytes, *, gone: bool = False) -> NeighbourChange | None:
    """None for what is no IP neighbour: forwarding entries of bridges come in the same messages."""
    family, index, state, _, _ = NDMSG.unpack_from(payload)
    attributes = _attributes(payload, NDMSG.size)
    if family not in AF.values() or NDA_DST not in attributes:
        return None
    usable = not gone and state & NUD_USABLE and len(attributes.get(NDA_LLADDR, b"")) == 6
    mac = attributes[NDA_LLADDR].hex(":") if usable else None
    return NeighbourChange(index, _address(attributes[NDA_DST]), mac)


def _changes(data: bytes) -> Iterator[Change]:
    for kind, _, payload in _messages(data):
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            change = _neighbour(payload, gone=kind == RTM_DELNEIGH)
            if change is not None:
                yield change
        elif kind in (RTM_NEWLINK, RTM_DELLINK):
            yield OtherChange(IFINFOMSG.unpack_from(payload)[2])
        else:
            yield OtherChange()
