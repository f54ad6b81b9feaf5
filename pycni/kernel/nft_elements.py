# SPDX-License-Identifier: Apache-2.0
"""Named sets and maps of nftables that may have a hundred thousand elements: whether they have one,
whether they have that many, and the addresses of a set of ours; asked by netlink.

libnftables reads all elements before it asks for one: a second and 130 MB. And it takes 700 bytes
for each that it lists.
Runs in the network namespace of the calling thread. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, suppress
from ipaddress import ip_address
from typing import Any

from pycni.cluster import IPAddress
from pycni.kernel import nft_tables
from pycni.kernel.netlink import (
    NetlinkError,
    attribute,
    attributes,
    nested,
    read_address,
    read_text,
    text,
)
from pycni.kernel.nft_tables import NFGENMSG, head

GET_SET = 10 << 8 | 10
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSET."""
NFTA_SET_TABLE, NFTA_SET_NAME = 1, 2
GET_ELEMENT = 10 << 8 | 13
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM."""
NFTA_LIST_TABLE, NFTA_LIST_SET, NFTA_LIST_ELEMENTS, NFTA_LIST_ELEM = 1, 2, 3, 1
NFTA_ELEM_KEY, NFTA_ELEM_DATA, NFTA_ELEM_FLAGS = 1, 2, 3
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
IFNAMSIZ = 16
VERDICTS = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}
"""NF_* and NFT_*, by nft(8)'s words."""

Answer = dict[str, Any] | bool | None
"""Of a set: whether it has an element, or an interval with it; of a map of verdicts, the verdict,
as libnftables-json(5) has it. None: it cannot be told, as where the set has other keys."""


def look_up(family: str, table: str, name: str, element: str | int) -> Answer:
    """What a set or map has at an element: an address, a port (a number), the name of an interface.
    Raises OSError if the kernel does not answer."""
    body = head(family) + text(NFTA_LIST_TABLE, table) + text(NFTA_LIST_SET, name)
    for key in _keys(element):
        try:
            return _get(body, key)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return False
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    return None


def _get(body: bytes, key: bytes) -> Answer:
    value = nested(NFTA_ELEM_KEY, attribute(NFTA_DATA_VALUE, key))
    body += nested(NFTA_LIST_ELEMENTS, nested(NFTA_LIST_ELEM, value))
    with closing(nft_tables.open_asker()) as asker:
        answer = asker.request(GET_ELEMENT, 0, body)
    elements = dict(attributes(answer, NFGENMSG))[NFTA_LIST_ELEMENTS]
    (found,) = (dict(attributes(value)) for _, value in attributes(elements))
    return _verdict(dict(attributes(found.get(NFTA_ELEM_DATA, b""))).get(NFTA_DATA_VERDICT))


Elements = frozenset[IPAddress | bytes]
"""Of a set of addresses. What is no single address, as others may put it there, is bytes: ends of
intervals, the `*` of nft(8), keys of another type."""


def addresses(family: str, table: str, name: str) -> Elements | None:
    """What is in a set of addresses; None if it is not there. Raises OSError."""
    found = _dump(family, table, name)
    return None if found is None else frozenset(_listed(found))


def count_among(family: str, table: str, name: str, wanted: Collection[IPAddress]) -> int | None:
    """How many addresses a set has; None if it is not there, or has something that is not `wanted`.
    Takes a third of the memory of `addresses`. Raises OSError."""
    found = _dump(family, table, name)
    if found is None:
        return None
    count = 0
    for one in _listed(found):
        if one not in wanted:
            return None
        count += 1
    return count


def _dump(family: str, table: str, name: str) -> list[bytes] | None:
    """The messages that list a set; None if it is not there."""
    body = head(family) + text(NFTA_LIST_TABLE, table) + text(NFTA_LIST_SET, name)
    try:
        with closing(nft_tables.open_asker()) as asker:
            return asker.dump(GET_ELEMENT, body)
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        return None


def _listed(bodies: Iterable[bytes]) -> Iterator[IPAddress | bytes]:
    """The elements that messages list."""
    for body in bodies:
        for kind, value in attributes(body, NFGENMSG):
            if kind == NFTA_LIST_ELEMENTS:
                for _, element in attributes(value):
                    yield _read(element)


def _read(element: bytes) -> IPAddress | bytes:
    """Only ends of intervals and `*` have flags; `*` has no key."""
    found = dict(attributes(element))
    key = dict(attributes(found.get(NFTA_ELEM_KEY, b""))).get(NFTA_DATA_VALUE, b"")
    is_single = NFTA_ELEM_FLAGS not in found and len(key) in (4, 16)
    return read_address(key) if is_single else element


def are_many(family: str, table: str) -> bool:
    """Whether a set or map of a table has so many elements, some thousand, that nobody should list
    them. Raises OSError."""
    start = head(family)
    with closing(nft_tables.open_asker()) as asker:
        bodies = asker.dump(GET_SET, start + text(NFTA_SET_TABLE, table))
    names = (dict(attributes(body, NFGENMSG))[NFTA_SET_NAME] for body in bodies)
    return not all(_is_short(start + text(NFTA_LIST_TABLE, table), name) for name in names)


def _is_short(body: bytes, name: bytes) -> bool:
    with closing(nft_tables.open_asker()) as asker:
        return asker.is_short(GET_ELEMENT, body + attribute(NFTA_LIST_SET, name))


def _keys(element: str | int) -> Iterator[bytes]:
    """What it may be in a set, which takes keys of one length."""
    if isinstance(element, int):
        yield element.to_bytes(2, "big")
        return
    try:
        yield ip_address(element).packed
    except ValueError:
        yield element.encode().ljust(IFNAMSIZ, b"\0")
        with suppress(OSError):
            yield socket.if_nametoindex(element).to_bytes(4, sys.byteorder)


def _verdict(data: bytes | None) -> Answer:
    if data is None:
        return True
    said = dict(attributes(data))
    code = int.from_bytes(said[NFTA_VERDICT_CODE], "big", signed=True)
    word, chain = VERDICTS.get(code, "queue"), said.get(NFTA_VERDICT_CHAIN)
    return {word: None if chain is None else {"target": read_text(chain)}}
