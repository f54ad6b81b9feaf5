# SPDX-License-Identifier: Apache-2.0
"""What the kernel would do with a packet to an address: its routes, neighbours and links, and the
events when these change.

A node asks about thousands of others at once, so a question must cost microseconds. Reads only,
except for `confirm`. Sockets belong to the network namespace of the thread that makes them.
Sources: linux/rtnetlink.h, linux/neighbour.h; rtnetlink(7).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from select import select
from typing import Self

from pycni.cluster import IPAddress
from pycni.kernel.event_filter import HOST_END_AS_IT_SHALL_BE
from pycni.kernel.event_socket import EventSocket
from pycni.kernel.links import (
    IFINFOMSG,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    Link,
    pack_link_question,
    read_link,
)
from pycni.kernel.netlink import (
    FAMILIES,
    NLM_F_ACK,
    attribute,
    attributes,
    messages,
    read_address,
    read_number,
)
from pycni.kernel.netlink_socket import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV4_RULE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
    RTMGRP_NEIGH,
    RTMGRP_NEXTHOP,
    NetlinkSocket,
)
from pycni.kernel.routes import (
    RTA_DST,
    RTA_METRICS,
    RTA_OIF,
    RTA_SRC,
    RTAX_MTU,
    RTM_GETROUTE,
    RTMSG,
    RTN_UNICAST,
    read_gateway,
)

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NDMSG = struct.Struct("=BxxxiHBB")
"""struct ndmsg: family, index, state, flags, type."""
NDA_DST, NDA_LLADDR = 1, 2
NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
"""Reachable, stale, delay, probe, noarp, permanent: states that the kernel sends in (NUD_VALID)."""
NUD_WRITTEN = 0x40 | 0x80
"""Noarp, permanent: states that somebody has written."""
NTF_USE = 1
ASKED = 500
"""Paths that are asked for before the answers are read: of thousands, questions and answers would
take a megabyte."""

PLACE_GROUPS = (
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
    | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_IPV6_ROUTE | RTMGRP_NEXTHOP
)  # fmt: skip
"""Everything but neighbours."""
GROUPS = PLACE_GROUPS | RTMGRP_NEIGH

Neighbours = dict[tuple[int, IPAddress], str]
"""(ifindex, address) -> MAC, of those the kernel would send to."""


@dataclass(frozen=True, slots=True)
class Path:
    """The way to an address: through which interface, to which neighbour on it.

    `mtu` is the route's own, in bytes; 0 if it has none.
    """

    ifindex: int
    neighbour: IPAddress
    mtu: int


@dataclass(frozen=True)
class NeighbourChange:
    """`mac` is None when the kernel no longer sends to the neighbour."""

    ifindex: int
    address: IPAddress
    mac: str | None


@dataclass(frozen=True)
class OtherChange:
    """Of the link `ifindex`; or, if that is 0, of addresses, routes, rules and nexthop objects."""

    ifindex: int = 0


Change = NeighbourChange | OtherChange


class Fib:
    """Questions to the kernel, and its events since this was made.

    `groups` are those of the events. Raises PermissionError without CAP_NET_ADMIN.
    """

    def __init__(self, groups: int = GROUPS) -> None:
        self._asker = NetlinkSocket()
        try:
            self._events = EventSocket(groups, without=[HOST_END_AS_IT_SHALL_BE])
        except OSError:
            self._asker.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._asker.close()
        self._events.close()

    def wait(self, seconds: float, *others: int) -> None:
        """Until there are changes, one of the descriptors is readable, or the time is over."""
        select([self._events.fileno(), *others], [], [], seconds)

    def changes(self) -> list[Change] | None:
        """What happened since the last call; None: events were lost, ask for everything again."""
        happened = self._events.take()
        if happened is None:
            return None
        return [change for event in happened for change in _changes(event.data)]

    def paths(self, addresses: Iterable[IPAddress], source: IPAddress) -> dict[IPAddress, Path]:
        """The ways from one of our addresses to others; those that cannot be reached are left out.

        Where the kernel has several paths, this is the one it takes for these two addresses.
        """
        return ask_paths(self._asker, addresses, source)

    def links(self, indexes: Iterable[int]) -> dict[int, Link]:
        """Interfaces by index; those that are gone are left out."""
        bodies = [pack_link_question(ifindex=index) for index in indexes]
        answers = self._asker.requests(RTM_GETLINK, 0, bodies)
        links = [read_link(answer) for answer in answers if answer is not None]
        return {link.ifindex: link for link in links}

    def neighbours(self) -> Neighbours:
        """All that the kernel would send to. Raises NetlinkError."""
        found: Neighbours = {}
        body = NDMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        for answer in self._asker.dump(RTM_GETNEIGH, body):
            change = _read_neighbour(answer)
            if change is not None and change.mac is not None:
                found[change.ifindex, change.address] = change.mac
        return found

    def confirm(self, neighbours: Iterable[tuple[int, IPAddress]]) -> None:
        """Have the kernel check, as if it had sent packets to them, that neighbours are there.

        A neighbour that the kernel does not know stays unknown: nothing is created. One that
        somebody has written is left out: told of its use, Linux since 5.16 forgets it and asks for
        it (neigh_add, net/core/neighbour.c).
        """
        asked = list(neighbours)
        answers = self._asker.requests(
            RTM_GETNEIGH, 0, [_pack_neighbour(*one, flags=0) for one in asked]
        )
        used = [
            _pack_neighbour(*one, flags=NTF_USE)
            for one, answer in zip(asked, answers, strict=True)
            if answer is not None and not NDMSG.unpack_from(answer)[2] & NUD_WRITTEN
        ]
        self._asker.requests(RTM_NEWNEIGH, NLM_F_ACK, used)


def ask_paths(
    asker: NetlinkSocket, addresses: Iterable[IPAddress], source: IPAddress
) -> dict[IPAddress, Path]:
    """As Fib.paths, by a socket of rtnetlink."""
    asked = list(addresses)
    found: dict[IPAddress, Path] = {}
    shared: dict[tuple[int, int, int], Path] = {}
    """Thousands of nodes may be behind one gateway."""
    for start in range(0, len(asked), ASKED):
        some = asked[start : start + ASKED]
        bodies = [_pack_route_question(address, source) for address in some]
        answers = asker.requests(RTM_GETROUTE, 0, bodies)
        for address, answer in zip(some, answers, strict=True):
            path = None if answer is None else _read_path(answer, address)
            if path is not None:
                key = path.ifindex, int(path.neighbour), path.mtu
                found[address] = shared.setdefault(key, path)
    return found


def _changes(data: bytes) -> Iterator[Change]:
    for kind, _, _, body in messages(data):
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            change = _read_neighbour(body, is_gone=kind == RTM_DELNEIGH)
            if change is not None:
                yield change
        elif kind in (RTM_NEWLINK, RTM_DELLINK):
            yield OtherChange(IFINFOMSG.unpack_from(body)[2])
        else:
            yield OtherChange()


def _pack_route_question(address: IPAddress, source: IPAddress) -> bytes:
    bits = address.max_prefixlen
    return (
        RTMSG.pack(FAMILIES[address.version], bits, bits, 0, 0, 0, 0, 0, 0)
        + attribute(RTA_DST, address.packed)
        + attribute(RTA_SRC, source.packed)
    )


def _read_path(body: bytes, address: IPAddress) -> Path | None:
    if RTMSG.unpack_from(body)[7] != RTN_UNICAST:
        return None
    found = dict(attributes(body, RTMSG.size))
    if RTA_OIF not in found:
        return None
    neighbour = read_gateway(found) or address
    metrics = dict(attributes(found.get(RTA_METRICS, b"")))
    mtu = read_number(metrics[RTAX_MTU]) if RTAX_MTU in metrics else 0
    return Path(read_number(found[RTA_OIF]), neighbour, mtu)


def _pack_neighbour(ifindex: int, address: IPAddress, *, flags: int) -> bytes:
    head = NDMSG.pack(FAMILIES[address.version], ifindex, 0, flags, 0)
    return head + attribute(NDA_DST, address.packed)


def _read_neighbour(body: bytes, *, is_gone: bool = False) -> NeighbourChange | None:
    """None for what is no IP neighbour: bridges' forwarding entries come in the same messages."""
    family, ifindex, state, _, _ = NDMSG.unpack_from(body)
    found = dict(attributes(body, NDMSG.size))
    if family not in FAMILIES.values() or NDA_DST not in found:
        return None
    is_usable = not is_gone and state & NUD_USABLE and len(found.get(NDA_LLADDR, b"")) == 6
    mac = found[NDA_LLADDR].hex(":") if is_usable else None
    return NeighbourChange(ifindex, read_address(found[NDA_DST]), mac)
