# SPDX-License-Identifier: Apache-2.0
"""A table of iptables-legacy as chains and rules in the words of nftables, so that one judge serves
both. Pure.

A match or target that nftables has no words for is "xt", as iptables adds it to nftables. Sources:
linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h,
xt_tcpudp.h.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct
from typing import Any

from pycni.kernel import xt_matches
from pycni.kernel.nft_chains import BaseChain, Expression, Rule

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
"""NF_INET_*; a base chain has its name in capitals."""
PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
"""Of the tables that filter."""
HEADER = Struct("=H29sB")
"""struct xt_entry_match and xt_entry_target: size, name, revision; then data."""
OFFSETS = Struct("=HH")
"""Of an entry's target and of the next entry, from the entry."""
COUNTERS = 16
"""Bytes."""
VERDICT = Struct("=i")
VERDICTS = {-1: "drop", -2: "accept", -5: "return"}
"""Of struct xt_standard_target, which has no name: a verdict of netfilter is -verdict - 1; from 0
on it is the offset of the entry that a chain begins with."""
CHAIN = "ERROR"
"""The target of the entry before a chain; its data is the chain's name."""
PORTS = Struct("=4H")
"""Of struct xt_tcp and xt_udp: the first and last port of the source, and of the destination."""
ANY_PORT = (0, 0xFFFF)
FROM_INTERFACE, TO_INTERFACE, NOT_SOURCE, NOT_DESTINATION, NOT_PROTOCOL = 1, 2, 8, 16, 64
"""IPT_INV_*, and the same of IP6T_INV_*."""
ODD = 4 | 32
"""IPT_INV_TOS and IPT_INV_FRAG."""
IFNAME = 16


@dataclass(frozen=True)
class Family:
    """How an entry of a family is laid out, in bytes, and where to ask for its tables."""

    version: int
    domain: int
    level: int
    word: str
    """Of nft(8)."""
    address: int
    """Size: source, destination and their masks are the first four things in an entry."""
    protocol: int
    """Where the protocol is, 2 bytes."""
    flags: int
    """Where the flags are; those that invert conditions are behind them."""
    goto: int
    """The flag by which a jump does not come back."""
    offsets: int
    """Where target_offset and next_offset are."""
    size: int
    """Of an entry without matches and target."""


FAMILIES = (
    Family(4, socket.AF_INET, socket.IPPROTO_IP, "ip", 4, 80, 82, 2, 88, 112),
    Family(6, socket.AF_INET6, socket.IPPROTO_IPV6, "ip6", 16, 128, 131, 4, 140, 168),
)


@dataclass(frozen=True)
class Table:
    """Chains that the kernel calls; and entries, without their counters, by the name of their
    chain."""

    family: Family
    base_chains: list[BaseChain]
    entries: dict[str, list[bytes]]
    names: dict[int, str]
    """Of chains, by the offset at which they begin."""

    def rules(self, chain: str) -> list[Rule]:
        """The rules of a chain in their order."""
        entries = self.entries.get(chain, [])
        return [Rule(0, "", tuple(_expressions(one, self.names, self.family))) for one in entries]


def read(
    block: bytes, bounds: Mapping[str, tuple[int, int]], table: str, *, family: Family
) -> Table:
    """A table from its entries. `bounds`: by hook, the offsets of its first entry and of its
    policy."""
    found = list(_entries(block, family))
    names = {begin: hook.upper() for hook, (begin, _) in bounds.items()}
    names |= {
        at + len(entry): _text(data)
        for at, entry in found
        for target, data in (_target(entry, family),)
        if target == CHAIN
    }
    hooks = {end: hook for hook, (_, end) in bounds.items()}
    made = Table(family, [], {}, names)
    chain = ""
    for at, entry in found:
        chain = names.get(at, chain)
        if at in hooks:
            is_closed = {"drop": None} in _expressions(entry, names, family)
            made.base_chains.append(
                BaseChain(family.word, table, chain, hooks[at], "drop" if is_closed else "accept",
                          PRIORITIES[table], "filter")
            )  # fmt: skip
        elif _target(entry, family)[0] != CHAIN:
            made.entries.setdefault(chain, []).append(entry)
    return made


def _entries(block: bytes, family: Family) -> Iterator[tuple[int, bytes]]:
    """The offset of each entry and the entry, without its counters, which end its fixed part."""
    at = 0
    while at < len(block):
        _, to_next = OFFSETS.unpack_from(block, at + family.offsets)
        rest = at + family.size
        yield at, block[at : rest - COUNTERS] + bytes(COUNTERS) + block[rest : at + to_next]
        at += to_next


def _expressions(entry: bytes, names: Mapping[int, str], family: Family) -> Iterator[Expression]:
    yield from _conditions(entry, family)
    yield from _matches(entry, family)
    yield from _verdict(*_target(entry, family), entry[family.flags], names, family)


def _target(entry: bytes, family: Family) -> tuple[str, bytes]:
    """Name and data of an entry's target."""
    at, _ = OFFSETS.unpack_from(entry, family.offsets)
    _, name, _ = HEADER.unpack_from(entry, at)
    return _text(name), entry[at + HEADER.size :]


def _verdict(
    target: str, data: bytes, flags: int, names: Mapping[int, str], family: Family
) -> Iterator[Expression]:
    """None where the next rule follows: it is what such a rule jumps to."""
    if target:
        yield {"xt": {"type": "target", "name": target}}
        return
    (verdict,) = VERDICT.unpack_from(data)
    if verdict in names:
        yield {"goto" if flags & family.goto else "jump": {"target": names[verdict]}}
    elif verdict < 0:
        yield {VERDICTS.get(verdict, "queue"): None}


def _conditions(entry: bytes, family: Family) -> Iterator[Expression]:
    size, inverted = family.address, entry[family.flags + 1]
    for number, (field, bit) in enumerate((("saddr", NOT_SOURCE), ("daddr", NOT_DESTINATION))):
        address, mask = (entry[at * size : (at + 1) * size] for at in (number, number + 2))
        if any(mask):
            bits = f"{int.from_bytes(mask, 'big'):0{size * 8}b}"
            right = {"addr": str(ip_address(address)), "len": bits.count("1")}
            left = {"payload": {"protocol": family.word, "field": field}}
            is_prefix = "01" not in bits
            yield _match(left, {"prefix": right}, inverted & bit) if is_prefix else _unknown("mask")
    for number, (key, bit) in enumerate((("iifname", FROM_INTERFACE), ("oifname", TO_INTERFACE))):
        at = 4 * size + number * IFNAME
        ifname, mask = entry[at : at + IFNAME], entry[at + 2 * IFNAME : at + 3 * IFNAME]
        if any(mask):
            compared = mask.count(0xFF)  # with the zero byte behind it, unless it is a prefix
            name = _text(ifname[:compared])
            name += "*" * (compared == len(name))
            yield _match({"meta": {"key": key}}, name, inverted & bit)
    protocol = int.from_bytes(entry[family.protocol : family.protocol + 2], "little")
    if protocol:
        yield _match({"meta": {"key": "l4proto"}}, protocol, inverted & NOT_PROTOCOL)
    if inverted & ODD or (family.version == 4 and entry[family.flags] & 1):
        yield _unknown("fragment")


def _matches(entry: bytes, family: Family) -> Iterator[Expression]:
    at, (end, _) = family.size, OFFSETS.unpack_from(entry, family.offsets)
    while at < end:
        size, name, revision = HEADER.unpack_from(entry, at)
        data = entry[at + HEADER.size : at + size]
        yield from _of_match(_text(name), revision, data)
        at += size


def _of_match(name: str, revision: int, data: bytes) -> Iterator[Expression]:
    if name in xt_matches.NAMES and (said := xt_matches.told(name, revision, data)):
        yield said
    elif name in ("tcp", "udp") and any(rest := data[PORTS.size : 12 if name == "tcp" else 9]):
        yield _unknown(f"{name} {rest.hex()}")
    elif name in ("tcp", "udp"):
        source, destination = PORTS.unpack_from(data)[:2], PORTS.unpack_from(data)[2:]
        for field, ports in (("sport", source), ("dport", destination)):
            if ports != ANY_PORT:
                right = ports[0] if ports[0] == ports[1] else {"range": list(ports)}
                yield _match({"payload": {"protocol": name, "field": field}}, right, inverted=0)
    else:
        yield _unknown(name)


def _match(left: dict[str, Any], right: object, inverted: int) -> Expression:
    return {"match": {"op": "!=" if inverted else "==", "left": left, "right": right}}


def _unknown(name: str) -> Expression:
    return {"xt": {"type": "match", "name": name}}


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")
