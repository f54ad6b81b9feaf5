# SPDX-License-Identifier: Apache-2.0
"""Which tables nftables has, with their flags, whether it has some chain, and the generation of all
that it has; asked by netlink.

Before release 1.0.7, libnftables writes a table's flag into its JSON from memory that it has freed,
and that may end the process. So a table with flags is never listed by it. Runs in the network
namespace of the calling thread. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
from contextlib import closing

from pycni.kernel.netlink import NetlinkError, attributes, read_text, text
from pycni.kernel.netlink_socket import NetlinkSocket

NETLINK_NETFILTER = 12
GET_TABLE = 10 << 8 | 1
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE."""
GET_CHAIN = 10 << 8 | 4
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN."""
GET_GENERATION = 10 << 8 | 16
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN."""
NFTA_GEN_ID, NFTA_GEN_PROC_PID = 1, 2
NFGENMSG = 4
"""Bytes of struct nfgenmsg: the address family, a version, a resource."""
NFTA_TABLE_NAME, NFTA_TABLE_FLAGS = 1, 2
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK = 1, 3, 4
NFTA_HOOK_DEV, NFTA_HOOK_DEVS, NFTA_DEVICE_NAME = 3, 4, 1
FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
"""NFPROTO_*, by nft(8)'s words."""

DORMANT = 1
"""NFT_TABLE_F_DORMANT: the kernel calls none of the table's chains."""

Table = tuple[str, str]
"""Family and name."""


def flags() -> dict[Table, int]:
    """NFT_TABLE_F_* of each table of IP or netdev. Raises OSError."""
    with closing(open_asker()) as asker:
        bodies = asker.dump(GET_TABLE, bytes(NFGENMSG))
    return dict(_read(body) for body in bodies if body[0] in FAMILIES)


def devices() -> dict[tuple[str, str, str], tuple[str, ...]]:
    """The names of the interfaces that base chains are of, by family, table and name; libnftables
    before 1.0.7 lists none. Chains of no interface are left out. Raises OSError."""
    with closing(open_asker()) as asker:
        bodies = asker.dump(GET_CHAIN, bytes(NFGENMSG))
    chains = (_read_chain(body) for body in bodies if body[0] in FAMILIES)
    return {chain: ifnames for chain, ifnames in chains if ifnames}


def has_chain(family: str, table: str, name: str) -> bool:
    """Whether there is such a chain. Raises OSError."""
    body = head(family) + text(NFTA_CHAIN_TABLE, table) + text(NFTA_CHAIN_NAME, name)
    with closing(open_asker()) as asker:
        try:
            asker.request(GET_CHAIN, 0, body)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
    return True


def head(family: str) -> bytes:
    """struct nfgenmsg of a request about one family."""
    number = next(number for number, word in FAMILIES.items() if word == family)
    return bytes((number,)) + bytes(NFGENMSG - 1)


def generation() -> int:
    """A number that the kernel changes with every transaction. What rules do to sets that they fill
    is none, nor are counters. Raises OSError."""
    return _number(NFTA_GEN_ID)


def this_thread() -> int:
    """The number by which the kernel's events of transactions name the calling thread: that of the
    machine, whatever the container. Raises OSError."""
    return _number(NFTA_GEN_PROC_PID)


def open_asker() -> NetlinkSocket:
    """A socket that asks netfilter, and belongs to the caller. Raises OSError."""
    return NetlinkSocket(
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    )


def _number(attribute: int) -> int:
    """What the kernel says of the generation, and of who asks (nf_tables_fill_gen_info)."""
    with closing(open_asker()) as asker:
        body = asker.request(GET_GENERATION, 0, bytes(NFGENMSG))
    return int.from_bytes(dict(attributes(body, NFGENMSG))[attribute], "big")


def _read(body: bytes) -> tuple[Table, int]:
    found = dict(attributes(body, NFGENMSG))
    name = read_text(found[NFTA_TABLE_NAME])
    return (FAMILIES[body[0]], name), int.from_bytes(found.get(NFTA_TABLE_FLAGS, b""), "big")


def _read_chain(body: bytes) -> tuple[tuple[str, str, str], tuple[str, ...]]:
    found = dict(attributes(body, NFGENMSG))
    hook = dict(attributes(found.get(NFTA_CHAIN_HOOK, b"")))
    listed = attributes(hook.get(NFTA_HOOK_DEVS, b""))
    names = [value for kind, value in listed if kind == NFTA_DEVICE_NAME]
    names += [hook[NFTA_HOOK_DEV]] if NFTA_HOOK_DEV in hook else []
    table, name = read_text(found[NFTA_CHAIN_TABLE]), read_text(found[NFTA_CHAIN_NAME])
    return (FAMILIES[body[0]], table, name), tuple(dict.fromkeys(map(read_text, names)))
