# SPDX-License-Identifier: Apache-2.0
"""The tables of iptables-legacy, which nftables does not show: looked at, never changed.

The kernel gives a table as one block of entries (linux/netfilter_ipv4/ip_tables.h, and its sister
for IPv6); xtables_entries.py reads it. Reads the network namespace of the calling thread; needs
CAP_NET_ADMIN.
"""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path
from struct import Struct

from pycni.errors import SetupError
from pycni.kernel import xtables_entries
from pycni.kernel.xtables_entries import FAMILIES, HOOKS, PRIORITIES, Family, Table

SO_GET_INFO, SO_GET_ENTRIES = 64, 65
INFO = Struct("=32sI5I5III")
"""struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size."""
ENTRIES_HEAD = Struct("=32sI4x")
"""struct ipt_get_entries."""
NAMES = {4: "ip_tables_names", 6: "ip6_tables_names"}


def tables(version: int) -> list[Table]:
    """The tables of one IP version (4 or 6) that the namespace has and that filter. Raises
    SetupError."""
    family = _family(version)
    try:
        names = [name for name in PRIORITIES if name in _made(version)]
        return [xtables_entries.read(*_read(family, name), name, family=family) for name in names]
    except OSError as error:
        raise _silent(error) from error


def has_chain(version: int, table: str, name: str) -> bool:
    """Whether a table of one IP version has a chain of its own with that name. Raises
    SetupError."""
    try:
        if table not in _made(version):
            return False
        block, _ = _read(_family(version), table)
    except OSError as error:
        raise _silent(error) from error
    return name.encode() + b"\0" in block  # jumps have no names


def _family(version: int) -> Family:
    return next(one for one in FAMILIES if one.version == version)


def _made(version: int) -> list[str]:
    """The tables that there are: to ask for another would make it."""
    try:
        return Path("/proc/thread-self/net", NAMES[version]).read_text().split()
    except FileNotFoundError:
        return []


def _silent(error: OSError) -> SetupError:
    return SetupError(
        f"cannot read the tables of iptables-legacy: {error.strerror}",
        hint="run as root; see what it says itself: iptables-legacy -S FORWARD",
    )


def _read(family: Family, name: str) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The entries of a table, and where those of each hook begin and end."""
    with socket.socket(family.domain, socket.SOCK_DGRAM) as asker:
        question = INFO.pack(name.encode(), *[0] * 13)
        info = INFO.unpack(_ask(asker, family, SO_GET_INFO, question))
        question = ENTRIES_HEAD.pack(name.encode(), info[13]) + bytes(info[13])
        block = _ask(asker, family, SO_GET_ENTRIES, question)[ENTRIES_HEAD.size :]
    bounds = {
        hook: (info[2 + number], info[7 + number])
        for number, hook in enumerate(HOOKS)
        if info[1] & 1 << number
    }
    return block, bounds


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
