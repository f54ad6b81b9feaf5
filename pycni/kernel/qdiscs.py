# SPDX-License-Identifier: Apache-2.0
"""Queueing disciplines, and the filters in them. Sources: linux/rtnetlink.h, linux/pkt_sched.h,
linux/pkt_cls.h; tc(8).
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import NamedTuple

from pycni.kernel.netlink import (
    CACHED,
    attributes,
    nested,
    number,
    read_number,
    read_text,
    text,
)

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

TCMSG = struct.Struct("=BxxxiIII")
"""struct tcmsg: family, index, handle, parent, info (a filter's priority << 16 | protocol)."""
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_CLASSID, TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_ID = 3, 6, 7, 8, 11
TCA_BPF_FLAG_ACT_DIRECT = 1
TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
TC_H_CLSACT = TC_H_INGRESS
CLSACT_HANDLE = 0xFFFF0000
ETH_P_ALL = 3
CLASSID = 1
"""In direct-action mode nothing reads it, but tc(8) gives one, too."""


class Qdisc(NamedTuple):
    """`parent` is TC_H_ROOT, or TC_H_INGRESS for an ingress or clsact qdisc."""

    ifindex: int
    parent: int
    kind: str
    rate: int = 0
    """Bytes per second of a tbf."""


class Filter(NamedTuple):
    """A filter; `name` is empty for kinds that have none."""

    kind: str
    name: str
    priority: int
    handle: int
    program: int = 0
    """The kernel's number of a BPF filter's program; 0 for other kinds."""


def read_qdisc(body: bytes) -> Qdisc:
    """The qdisc that an RTM_NEWQDISC or RTM_DELQDISC is about. Raises ValueError if garbled."""
    _, ifindex, _, parent, _ = TCMSG.unpack_from(body)
    for name, value in attributes(body, TCMSG.size):
        if name == TCA_KIND:
            return Qdisc(ifindex, parent, read_text(value))
    raise ValueError("a qdisc without a kind")


@lru_cache(maxsize=CACHED)
def read_filter(body: bytes) -> Filter | None:
    """The filter that an RTM_NEWTFILTER is about; None for the head of a chain, which is none.

    Raises ValueError if garbled.
    """
    _, _, handle, _, info = TCMSG.unpack_from(body)
    if not handle:
        return None
    found = dict(attributes(body, TCMSG.size))
    kind, name, program = read_text(found[TCA_KIND]), "", 0
    if kind == "bpf":
        options = dict(attributes(found.get(TCA_OPTIONS, b"")))
        name = read_text(options.get(TCA_BPF_NAME, b""))
        program = read_number(options[TCA_BPF_ID]) if TCA_BPF_ID in options else 0
    return Filter(kind, name, info >> 16, handle, program)


def pack_filter_question(ifindex: int, parent: int, *, priority: int, handle: int) -> bytes:
    """An RTM_GETTFILTER for one BPF filter for all protocols."""
    info = priority << 16 | socket.htons(ETH_P_ALL)
    return TCMSG.pack(0, ifindex, handle, parent, info) + text(TCA_KIND, "bpf")


def pack_qdiscs_question() -> bytes:
    """An RTM_GETQDISC for the qdiscs of all links."""
    return TCMSG.pack(0, 0, 0, 0, 0)


def pack_filters_question(ifindex: int, parent: int) -> bytes:
    """An RTM_GETTFILTER for all filters of a link at `parent`."""
    return TCMSG.pack(0, ifindex, 0, parent, 0)


def pack_ingress_question(ifindex: int) -> bytes:
    """An RTM_GETQDISC for the qdisc at a link's ingress."""
    return TCMSG.pack(0, ifindex, 0, TC_H_INGRESS, 0)


def pack_clsact(ifindex: int) -> bytes:
    """An RTM_NEWQDISC or RTM_DELQDISC."""
    return TCMSG.pack(0, ifindex, CLSACT_HANDLE, TC_H_CLSACT, 0) + text(TCA_KIND, "clsact")


def pack_filter(ifindex: int, parent: int, *, fd: int, name: str, priority: int,
                handle: int) -> bytes:  # fmt: skip
    """An RTM_NEWTFILTER for a BPF program in direct-action mode, for all protocols."""
    info = priority << 16 | socket.htons(ETH_P_ALL)
    options = nested(
        TCA_OPTIONS,
        number(TCA_BPF_CLASSID, CLASSID),
        number(TCA_BPF_FD, fd),
        text(TCA_BPF_NAME, name),
        number(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT),
    )
    return TCMSG.pack(0, ifindex, handle, parent, info) + text(TCA_KIND, "bpf") + options
