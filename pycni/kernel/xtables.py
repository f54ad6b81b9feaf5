# SPDX-License-Identifier: Apache-2.0
"""The tables of iptables-legacy, which nftables does not show: looked at, never changed.

The kernel gives a table as one block of entries (linux/netfilter_ipv4/ip_tables.h, and its sister
for IPv6). Reads the network namespace of the calling thread; needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from pycni.errors import SetupError

TABLE = b"filter"
FORWARD = 2
"""NF_INET_FORWARD: index into the entry points of a table."""
SO_GET_INFO, SO_GET_ENTRIES = 64, 65
INFO = Struct("=32sI5I5III")
"""struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size."""
ENTRIES_HEAD = Struct("=32sI4x")
"""struct ipt_get_entries."""
TARGET = Struct("=H29sB")
"""struct xt_entry_target: its size, name, revision; a verdict follows where the name is empty."""
VERDICT = Struct("=i")
VERDICTS = {-1: "DROP", -2: "ACCEPT"}
"""Of struct xt_standard_target: a verdict of netfilter is -verdict - 1."""
IFNAME = 16


@dataclass(frozen=True)
class Family:
    """Where a family's tables are, and how an entry is laid out, in bytes."""

    version: int
    domain: int
    level: int
    interfaces: int
    """Where the names of both interfaces and their masks begin in an entry."""
    conditions: int
    """Size of struct ipt_ip or ip6t_ip6, with which an entry begins."""
    offsets: int
    """Where target_offset and next_offset are."""
    size: int
    names: Path


FAMILIES = (
    Family(4, socket.AF_INET, socket.IPPROTO_IP, 16, 84, 88, 112,
           Path("/proc/thread-self/net/ip_tables_names")),
    Family(6, socket.AF_INET6, socket.IPPROTO_IPV6, 64, 136, 140, 168,
           Path("/proc/thread-self/net/ip6_tables_names")),
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """An entry: the interfaces that it is for, whether it is for all packets, and its target."""

    in_ifname: str
    out_ifname: str
    for_all: bool
    target: str


def forward_rules(version: int) -> list[Rule] | None:
    """The chain FORWARD of the table `filter` of one IP version (4 or 6); its policy is the last
    rule. None if the namespace has no such table. Raises SetupError."""
    (family,) = (one for one in FAMILIES if one.version == version)
    try:
        if TABLE.decode() not in family.names.read_text().split():  # to ask would make it
            return None
        with socket.socket(family.domain, socket.SOCK_DGRAM) as asker:
            info = INFO.unpack(_ask(asker, family, SO_GET_INFO, INFO.pack(TABLE, *[0] * 13)))
            begin, end, size = info[2 + FORWARD], info[7 + FORWARD], info[13]
            question = ENTRIES_HEAD.pack(TABLE, size) + bytes(size)
            block = _ask(asker, family, SO_GET_ENTRIES, question)[ENTRIES_HEAD.size :]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SetupError(
            f"cannot read the tables of iptables-legacy: {error.strerror}",
            hint="run as root; see what it says itself: iptables-legacy -S FORWARD",
        ) from error
    return list(read(block, begin, end, family=family))


def read(block: bytes, begin: int, end: int, *, family: Family) -> Iterator[Rule]:
    """The entries from one offset to another, that included. Pure."""
    offsets = Struct("=HH")
    at = begin
    while at <= end:
        target_offset, next_offset = offsets.unpack_from(block, at + family.offsets)
        conditions = block[at : at + family.conditions]
        names = conditions[family.interfaces :]
        yield Rule(
            _text(names[:IFNAME]),
            _text(names[IFNAME : 2 * IFNAME]),
            not any(conditions) and target_offset == family.size,
            _target(block, at + target_offset),
        )
        at += next_offset


def _target(block: bytes, at: int) -> str:
    _, name, _ = TARGET.unpack_from(block, at)
    if _text(name):
        return _text(name)
    (verdict,) = VERDICT.unpack_from(block, at + TARGET.size)
    return VERDICTS.get(verdict, "")


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")


def _ask(asker: socket.socket, family: Family, option: int, question: bytes) -> bytes:
    """getsockopt(2), whose buffer carries the question, too; Python's own hands over none."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(question, len(question))
    length = ctypes.c_uint(len(question))
    descriptor, level = asker.fileno(), family.level
    if libc.getsockopt(descriptor, level, option, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw
