# SPDX-License-Identifier: Apache-2.0
"""Which sets of nftables only newer releases of libnftables can read; asked by netlink.

With a set, nft leaves in the kernel which expression the set's elements stand for. Before release
1.1.4, libnftables ends the process at a kind of expression that it has no reader for. From 1.1.2 on
it writes VALUE for a set that is declared by `type`, and for the results of a map; older releases
have no reader for that. A set that is declared by `typeof ip saddr` can be read by all. Runs in the
network namespace of the calling thread.

Sources: linux/netfilter/nf_tables.h; libnftnl/udata.h; include/expression.h of nftables, and what
releases 1.0.6, 1.0.9, 1.1.1, 1.1.3 and 1.1.7 do at each kind.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from pycni.kernel import nft_tables
from pycni.kernel.netlink import NetlinkError, attributes, read_text, text
from pycni.kernel.nft_tables import NFGENMSG, Table

READ_FROM = (1, 1, 2)
"""The first release that can read all sets which releases up to 1.1.7 write."""

GET_SET = 10 << 8 | 10
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSET."""
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_USERDATA = 1, 2, 13
FAMILIES = {**nft_tables.FAMILIES, 3: "arp", 5: "netdev", 7: "bridge"}

UDATA_KEY_TYPEOF, UDATA_DATA_TYPEOF, UDATA_TYPEOF_EXPR = 3, 4, 0
VALUE = 4
"""EXPR_VALUE."""
READ_BY_ALL = frozenset({1, 7, 8, 9, 10, 11, 12, 13, 23, 24, 25, 26, 27})
"""Kinds of expressions (EXPR_*): what is in packets and their surroundings, and concatenations."""


class NamedSet(NamedTuple):
    """A set or map. One without a name of its own has the kernel's, as `__map3`."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"set {self.name} of table {self.family} {self.table}"


def demanding(table: Table | None = None) -> list[NamedSet]:
    """The sets of a table, or of all, that releases before READ_FROM cannot read; none if the table
    is gone. Raises OSError."""
    family, name = (0, "") if table is None else (_number(table[0]), table[1])
    body = bytes((family,)) + bytes(NFGENMSG - 1) + (text(NFTA_SET_TABLE, name) if name else b"")
    try:
        with closing(nft_tables.open_asker()) as asker:
            bodies = asker.dump(GET_SET, body)
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        return []
    return [found for one in bodies if (found := _read(one)) is not None]


def _read(body: bytes) -> NamedSet | None:
    """The set that a message tells of, if it is a demanding one."""
    found = dict(attributes(body, NFGENMSG))
    if READ_BY_ALL.issuperset(_kinds(found.get(NFTA_SET_USERDATA, b""))):
        return None
    family = FAMILIES.get(body[0], str(body[0]))
    return NamedSet(family, read_text(found[NFTA_SET_TABLE]), read_text(found[NFTA_SET_NAME]))


def _kinds(data: bytes) -> Iterator[int]:
    """What the keys and the results stand for, in user data of a set."""
    for kind, value in _pieces(data):
        if kind in (UDATA_KEY_TYPEOF, UDATA_DATA_TYPEOF):
            for inner, number in _pieces(value):
                if inner == UDATA_TYPEOF_EXPR:
                    yield int.from_bytes(number, sys.byteorder)


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each piece: a byte each for type and length, then the value. What does not
    fit ends it, as in libnftnl."""
    at = 0
    while at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data):
        end = at + 2 + data[at + 1]
        yield data[at], data[at + 2 : end]
        at = end


def _number(family: str) -> int:
    """NFPROTO_* of nft(8)'s word."""
    return next(number for number, word in FAMILIES.items() if word == family)
