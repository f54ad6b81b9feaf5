# SPDX-License-Identifier: Apache-2.0
"""IPv6 packets whose upper-layer header is behind others, byte by byte: also those that no library
would build."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bpf.world import GATEWAY_MAC, POD_ONE_MAC

HOP_BY_HOP, ROUTING, FRAGMENT, AH, NO_NEXT, DESTINATION, MOBILITY = 0, 43, 44, 51, 59, 60, 135
UDP, ICMPV6 = 17, 58
PADDING = bytes([1, 4, 0, 0, 0, 0])
MANY = 8
"""Headers that the programs read, upper.h."""


@dataclass(frozen=True)
class Header:
    """An extension header without its first byte, which says what is next."""

    proto: int
    rest: bytes


def options(proto: int, *, units: int = 0) -> Header:
    """Hop-by-hop or destination options of padding, 8 bytes and `units` times 8 more."""
    padding = PADDING + bytes([1, 6, *bytes(6)]) * units
    return Header(proto, bytes([units]) + padding)


def fragment(*, offset: int = 0, more: bool = False) -> Header:
    """`offset` in units of 8 bytes."""
    return Header(FRAGMENT, b"\0" + (offset << 3 | more).to_bytes(2, "big") + b"\0\0\0\7")


ROUTED = Header(ROUTING, bytes([0, 253, 0, 0, 0, 0, 0]))
"""Of an experimental type, no segment left."""
AUTHENTICATED = Header(AH, bytes([4, 0, 0, 0, 0, 1, 0, 0, 0, 1]) + bytes(13))
"""24 bytes: their length is in units of 4."""

CHAINS: dict[str, tuple[Header, ...]] = {
    "hop-by-hop options": (options(HOP_BY_HOP),),
    "destination options": (options(DESTINATION),),
    "long destination options": (options(DESTINATION, units=9),),
    "routing header": (ROUTED,),
    "authentication header": (AUTHENTICATED,),
    "mobility header": (options(MOBILITY),),
    "first fragment": (fragment(more=True),),
    "atomic fragment": (fragment(),),
    "fragment of a fragment": (fragment(more=True), fragment(more=True)),
    "options before and in the fragment": (
        options(HOP_BY_HOP), options(DESTINATION), fragment(more=True), options(DESTINATION),
    ),
    "every kind": (options(HOP_BY_HOP), options(DESTINATION), ROUTED, fragment(), AUTHENTICATED,
                   options(DESTINATION)),
    "as many as are read": (options(DESTINATION),) * MANY,
}  # fmt: skip
"""Behind which the upper-layer header is found."""


def chained(src: str, dst: str, headers: tuple[Header, ...], proto: int, upper: bytes) -> Packet:
    """A frame of pod one: IPv6, the headers, then `upper`."""
    kinds = [*(header.proto for header in headers), proto]
    chain = b"".join(
        bytes([following]) + header.rest
        for header, following in zip(headers, kinds[1:], strict=True)
    )
    ip6 = IPv6(src=src, dst=dst, nh=kinds[0], hlim=255)
    return Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC) / ip6 / Raw(chain + upper)


def unreadable(src: str, dst: str, proto: int, upper: bytes) -> Iterator[tuple[str, Packet]]:
    """Packets whose upper-layer header a receiver might find, but the programs do not."""
    many = (options(DESTINATION),) * (MANY + 1)
    yield "more headers than are read", chained(src, dst, many, proto, upper)
    first = (fragment(more=True),)
    yield "a fragment that ends before it", chained(src, dst, first, proto, b"")
    yield "a fragment that ends in it", chained(src, dst, first, proto, upper[:3])
    cut = chained(src, dst, (*first, options(DESTINATION)), proto, b"")
    yield "a fragment that ends between headers", cut
    open_ended = (*first, Header(DESTINATION, bytes([200]) + PADDING))
    yield "a fragment that ends in its options", chained(src, dst, open_ended, proto, upper)
    endless = (Header(DESTINATION, bytes([255]) + PADDING),)
    yield "options longer than the packet", chained(src, dst, endless, proto, upper)
    jumbo = chained(src, dst, (options(HOP_BY_HOP),), proto, upper)
    jumbo[IPv6].plen = 0  # the kernel does not cut such a packet at its length
    yield "a length of zero before options", jumbo
