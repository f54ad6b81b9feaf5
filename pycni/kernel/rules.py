# SPDX-License-Identifier: Apache-2.0
"""Rules, by which the kernel chooses a routing table.

Sources: linux/fib_rules.h, net/core/fib_rules.c; ip-rule(8).
"""

from __future__ import annotations

import struct
from ipaddress import ip_network
from typing import NamedTuple

from pycni.cluster import IPAddress, IPNetwork
from pycni.kernel.netlink import (
    FAMILIES,
    attribute,
    attributes,
    number,
    read_address,
    read_number,
)

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

FIB_RULE_HDR = struct.Struct("=BBBBBxxBI")
"""struct fib_rule_hdr: family, lengths of destination and source, tos, table, action, flags."""
FRA_DST, FRA_SRC, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE = 1, 2, 6, 10, 15
FR_ACT_TO_TBL, FR_ACT_UNREACHABLE = 1, 7


class Rule(NamedTuple):
    """A rule that packets from `source` look up `table`."""

    source: IPAddress
    priority: int
    table: int = 0
    """0 in a rule that is to be deleted: any."""


class Listed(NamedTuple):
    """A rule as the kernel lists it; None and 0: it does not ask for that."""

    source: IPNetwork | None
    destination: IPNetwork | None
    mark: int
    action: int
    """FR_ACT_*."""
    table: int
    priority: int


def pack_rule(rule: Rule) -> bytes:
    """An RTM_NEWRULE or RTM_DELRULE."""
    length = rule.source.max_prefixlen
    body = FIB_RULE_HDR.pack(FAMILIES[rule.source.version], 0, length, 0, 0, FR_ACT_TO_TBL, 0)
    body += attribute(FRA_SRC, rule.source.packed) + number(FRA_PRIORITY, rule.priority)
    return body + number(FRA_TABLE, rule.table) if rule.table else body


def pack_unreachable(version: int, mark: int, priority: int) -> bytes:
    """An RTM_DELRULE for a rule that packets with a mark, all of it, have no route."""
    body = FIB_RULE_HDR.pack(FAMILIES[version], 0, 0, 0, 0, FR_ACT_UNREACHABLE, 0)
    return body + number(FRA_FWMARK, mark) + number(FRA_PRIORITY, priority)


def pack_rules_question(version: int) -> bytes:
    """An RTM_GETRULE for all rules of an IP version."""
    return FIB_RULE_HDR.pack(FAMILIES[version], 0, 0, 0, 0, 0, 0)


def read_rule(body: bytes) -> Listed:
    """The rule that an RTM_NEWRULE is about. Raises ValueError if it is garbled."""
    _, to_length, from_length, _, table, action, _ = FIB_RULE_HDR.unpack_from(body)
    found = dict(attributes(body, FIB_RULE_HDR.size))
    return Listed(
        _network(found.get(FRA_SRC), from_length),
        _network(found.get(FRA_DST), to_length),
        _number(found.get(FRA_FWMARK)),
        action,
        _number(found.get(FRA_TABLE)) or table,
        _number(found.get(FRA_PRIORITY)),
    )


def _network(packed: bytes | None, length: int) -> IPNetwork | None:
    """The network of an address: the kernel keeps the bits that it does not compare."""
    if not packed or not length:
        return None
    return ip_network((read_address(packed), length), strict=False)


def _number(packed: bytes | None) -> int:
    return 0 if packed is None else read_number(packed)
