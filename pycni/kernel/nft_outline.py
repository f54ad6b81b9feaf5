# SPDX-License-Identifier: Apache-2.0
"""What a table of nftables is made of: its chains, the comments of its rules, the names of its sets
and maps. Not what rules do, nor elements. Asked by netlink, told as libnftables tells it.

For any listing of a table, older releases of libnftables read all elements of its sets: 4 MB and
30 ms for 5,000 addresses. Runs in the network namespace of the calling thread. Sources:
linux/netfilter/nf_tables.h; libnftnl/udata.h.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from pycni.kernel.netlink import NetlinkError, attributes, read_text, text
from pycni.kernel.netlink_socket import NetlinkSocket
from pycni.kernel.nft_tables import GET_CHAIN, NFGENMSG, head, open_asker

GET_RULE, GET_SET = 10 << 8 | 7, 10 << 8 | 10
"""NFNL_SUBSYS_NFTABLES; NFT_MSG_GETRULE, NFT_MSG_GETSET."""
NFTA_TABLE = 1
"""Of a chain, a rule and a set, the table that it is in."""
NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 3, 4, 5, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
"""NF_INET_*."""
POLICIES = ("drop", "accept")
"""NF_DROP, NF_ACCEPT."""
NFTA_RULE_CHAIN, NFTA_RULE_USERDATA = 2, 7
COMMENT = 0
"""NFTNL_UDATA_RULE_COMMENT: a byte each for type and length, then a text that ends with 0."""
NFTA_SET_NAME, NFTA_SET_FLAGS = 2, 3
ANONYMOUS, MAP = 0x1, 0x8
"""NFT_SET_*."""

Listing = list[dict[str, Any]]
"""As libnftables-json(5)."""


def read(family: str, table: str) -> Listing:
    """The table; nothing if it is gone. Raises OSError."""
    asked = head(family) + text(NFTA_TABLE, table)
    with closing(open_asker()) as asker:
        chains = [*_chains(asker, asked, table)]
        rules = [*_rules(asker, asked)]
        return [*chains, *rules, *_sets(asker, asked)]


def _chains(asker: NetlinkSocket, asked: bytes, table: str) -> Iterator[dict[str, Any]]:
    """The kernel tells of those of all tables of the family."""
    for body in asker.dump(GET_CHAIN, asked[:NFGENMSG]):
        found = dict(attributes(body, NFGENMSG))
        if body[0] != asked[0] or read_text(found[NFTA_TABLE]) != table:
            continue
        chain: dict[str, Any] = {"name": read_text(found[NFTA_CHAIN_NAME])}
        if NFTA_CHAIN_HOOK in found:
            hook = dict(attributes(found[NFTA_CHAIN_HOOK]))
            chain["type"] = read_text(found[NFTA_CHAIN_TYPE])
            chain["hook"] = HOOKS[_number(hook[NFTA_HOOK_HOOKNUM])]
            chain["prio"] = int.from_bytes(hook[NFTA_HOOK_PRIORITY], "big", signed=True)
            chain["policy"] = POLICIES[_number(found[NFTA_CHAIN_POLICY])]
        yield {"chain": chain}


def _rules(asker: NetlinkSocket, asked: bytes) -> Iterator[dict[str, Any]]:
    """In their order, those of one chain after those of another."""
    for body in asker.dump(GET_RULE, asked):
        found = dict(attributes(body, NFGENMSG))
        comment = _comment(found.get(NFTA_RULE_USERDATA, b""))
        yield {"rule": {"chain": read_text(found[NFTA_RULE_CHAIN]), "comment": comment}}


def _sets(asker: NetlinkSocket, asked: bytes) -> Iterator[dict[str, Any]]:
    """Those that have names of their own."""
    try:
        bodies = asker.dump(GET_SET, asked)
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        return
    for body in bodies:
        found = dict(attributes(body, NFGENMSG))
        flags = _number(found.get(NFTA_SET_FLAGS, b""))
        if not flags & ANONYMOUS:
            yield {"map" if flags & MAP else "set": {"name": read_text(found[NFTA_SET_NAME])}}


def _comment(data: bytes) -> str:
    at = 0
    while at + 2 <= len(data):
        kind, end = data[at], at + 2 + data[at + 1]
        if kind == COMMENT:
            return read_text(data[at + 2 : end])
        at = end
    return ""


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")
