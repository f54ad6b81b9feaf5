# SPDX-License-Identifier: Apache-2.0
"""Which states of connections the rules of iptables in a chain of nftables ask for; asked by
netlink.

libnftables tells only that a rule asks. Runs in the network namespace of the calling thread.
Sources: linux/netfilter/nf_tables.h, linux/netfilter/xt_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from pycni.kernel import nft_tables
from pycni.kernel.netlink import attributes, read_text, text
from pycni.kernel.nft_tables import FAMILIES, NFGENMSG

NAMES = ("conntrack", "state")
"""Matches of iptables by the state of a connection. Since iptables 1.4 the second is made as the
first."""

GET_RULE = 10 << 8 | 7
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETRULE."""
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS = 1, 2, 3, 4
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_MATCH_NAME, NFTA_MATCH_REV, NFTA_MATCH_INFO = 1, 2, 3

ASKED = struct.Struct("=146x3H")
"""Of struct xt_conntrack_mtinfo2 and 3: match_flags, invert_flags, state_mask."""
REVISIONS = (2, 3)
STATE, ALIAS = 0x1, 0x2000
"""XT_CONNTRACK_STATE, XT_CONNTRACK_STATE_ALIAS."""
BITS = {"invalid": 0x1, "established": 0x2, "related": 0x4, "new": 0x8, "untracked": 0x100}
"""XT_CONNTRACK_STATE_BIT and its like; the words are those of nft(8)."""
SNAT = 0x40
"""XT_CONNTRACK_STATE_SNAT: all that is masqueraded. Its sister for destinations is about a few."""


class States(NamedTuple):
    """Of one match."""

    words: frozenset[str]
    """In one of these a connection must be."""
    is_all: bool
    """Whether nothing else is asked of it."""


def read(family: str, table: str, chain: str) -> dict[int, list[States | None]]:
    """By the handle of each rule, its matches NAMES in their order; None where it cannot be told.
    Raises OSError."""
    number = next(number for number, word in FAMILIES.items() if word == family)
    body = bytes((number,)) + bytes(NFGENMSG - 1)
    body += text(NFTA_RULE_TABLE, table) + text(NFTA_RULE_CHAIN, chain)
    with closing(nft_tables.open_asker()) as asker:
        bodies = asker.dump(GET_RULE, body)
    found = (dict(attributes(one, NFGENMSG)) for one in bodies)
    return {
        int.from_bytes(one[NFTA_RULE_HANDLE], "big"): list(
            _matches(one.get(NFTA_RULE_EXPRESSIONS, b""))
        )
        for one in found
    }


def _matches(expressions: bytes) -> Iterator[States | None]:
    for _, expression in attributes(expressions):
        found = dict(attributes(expression))
        if read_text(found[NFTA_EXPR_NAME]) != "match":
            continue
        match = dict(attributes(found[NFTA_EXPR_DATA]))
        if read_text(match[NFTA_MATCH_NAME]) in NAMES:
            revision = int.from_bytes(match[NFTA_MATCH_REV], "big")
            yield told(match[NFTA_MATCH_INFO], revision)


def told(info: bytes, revision: int) -> States | None:
    """What a match says, from its data; None where it cannot be told."""
    flags, inverted, mask = ASKED.unpack_from(info) if revision in REVISIONS else (0, 0, 0)
    if not flags & STATE or mask & SNAT:
        return None
    words = {word for word, bit in BITS.items() if mask & bit}
    if inverted & STATE:
        words = BITS.keys() - words
    return States(frozenset(words), flags & ~ALIAS == STATE)
