# SPDX-License-Identifier: Apache-2.0
"""What rules of iptables ask for by its own matches: states of connections, and several ports. In
the words of libnftables-json(5).

Of rules in nftables, libnftables tells only that they ask, so these are asked for by netlink, in
the network namespace of the calling thread. Sources: linux/netfilter/nf_tables.h, xt_conntrack.h,
xt_multiport.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from pycni.kernel import nft_tables
from pycni.kernel.netlink import attributes, read_text, text
from pycni.kernel.nft_tables import FAMILIES, NFGENMSG

OF_STATES = ("conntrack", "state")
"""Matches by the state of a connection. Since iptables 1.4 the second is made as the first."""
OF_PORTS = "multiport"
NAMES = (*OF_STATES, OF_PORTS)

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
PORTS = struct.Struct("=BB15H15BB")
"""struct xt_multiport_v1: which ports, how many numbers, the numbers, whether the next one ends a
range, whether all is inverted."""
FIELDS = ("sport", "dport")
"""Of XT_MULTIPORT_SOURCE and XT_MULTIPORT_DESTINATION."""


def read(family: str, table: str, chain: str) -> dict[int, list[dict[str, Any] | None]]:
    """By the handle of each rule, what its matches NAMES say, in their order. Raises OSError."""
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


def _matches(expressions: bytes) -> Iterator[dict[str, Any] | None]:
    for _, expression in attributes(expressions):
        found = dict(attributes(expression))
        if read_text(found[NFTA_EXPR_NAME]) != "match":
            continue
        match = dict(attributes(found[NFTA_EXPR_DATA]))
        name = read_text(match[NFTA_MATCH_NAME])
        if name in NAMES:
            revision = int.from_bytes(match[NFTA_MATCH_REV], "big")
            yield told(name, revision, match[NFTA_MATCH_INFO])


def told(name: str, revision: int, info: bytes) -> dict[str, Any] | None:
    """What a match NAMES says, from its data; None where it cannot be told. Of states: in one of
    these a connection must be ("states"), and whether nothing else is asked of it ("all")."""
    if name == OF_PORTS:
        return _ports(info) if revision == 1 else None
    flags, inverted, mask = ASKED.unpack_from(info) if revision in REVISIONS else (0, 0, 0)
    if not flags & STATE or mask & SNAT:
        return None
    words = {word for word, bit in BITS.items() if mask & bit}
    if inverted & STATE:
        words = BITS.keys() - words
    is_all = flags & ~ALIAS == STATE
    return {"xt": {"type": "match", "name": name, "states": sorted(words), "all": is_all}}


def _ports(info: bytes) -> dict[str, Any] | None:
    which, count, *rest, inverted = PORTS.unpack_from(info)
    numbers, is_first = rest[:15], rest[15:]
    if which >= len(FIELDS) or count > len(numbers):
        return None
    found: list[Any] = []
    at = 0
    while at < count:
        found.append({"range": numbers[at : at + 2]} if is_first[at] else numbers[at])
        at += 2 if is_first[at] else 1
    left = {"payload": {"protocol": "th", "field": FIELDS[which]}}
    return {"match": {"op": "!=" if inverted else "==", "left": left, "right": {"set": found}}}
