# SPDX-License-Identifier: Apache-2.0
"""Filters of events in the kernel: what nobody wants to hear neither wakes a reader nor takes room.

A datagram of rtnetlink is taken by its first message. Classic BPF (socket(7), SO_ATTACH_FILTER;
Documentation/networking/filter.rst), whose extension `nla` finds an attribute of the message. Pure.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pycni.kernel.links import (
    IFF_UP,
    IFINFOMSG,
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    RTM_NEWLINK,
)
from pycni.kernel.netlink import HEADER
from pycni.names import ALIAS_HEAD, GATEWAY_MAC, NAME_HEAD

LOAD_32, LOAD_16, LOAD_8, LOAD_8_AT_X = 0x20, 0x28, 0x30, 0x50
LOAD_NUMBER, LOAD_X_NUMBER, COPY_TO_X = 0x00, 0x01, 0x07
JUMP_IF_EQUAL, JUMP_IF_ANY_BIT, RETURN = 0x15, 0x45, 0x06
"""linux/bpf_common.h, linux/filter.h."""
FIND_ATTRIBUTE = 0xFFFFF000 + 12
"""SKF_AD_OFF + SKF_AD_NLATTR: from the byte A on, the place of the attribute X, or 0."""
ALL = 0xFFFFFFFF
INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter."""

TYPE_AT = 4
FLAGS_AT, CHANGE_AT = HEADER.size + 8, HEADER.size + 12
"""Where struct nlmsghdr has the type, and struct ifinfomsg behind it flags and what changed."""
ATTRIBUTES_AT = HEADER.size + IFINFOMSG.size
NLATTR = 4
"""Bytes of struct nlattr."""


@dataclass(frozen=True)
class Step:
    """An instruction; of a jump, whether the condition fails if it jumps, or if it does not."""

    code: int
    number: int
    fails_if: bool | None = None


class Condition(Protocol):
    """Something that holds for an event or not."""

    def steps(self) -> Iterator[Step]:
        """Fail, or go on behind the last one."""
        ...


@dataclass(frozen=True)
class Kind:
    """Its message has the type `kind` (RTM_*)."""

    kind: int

    def steps(self) -> Iterator[Step]:
        """Numbers are loaded as big-endian, while netlink has the machine's order."""
        yield Step(LOAD_16, TYPE_AT)
        yield Step(JUMP_IF_EQUAL, socket.htons(self.kind), fails_if=False)


@dataclass(frozen=True)
class LinkFlag:
    """The link has the flag (IFF_*)."""

    flag: int

    def steps(self) -> Iterator[Step]:
        yield Step(LOAD_32, FLAGS_AT)
        yield Step(JUMP_IF_ANY_BIT, socket.htonl(self.flag), fails_if=False)


@dataclass(frozen=True)
class OnlyFlags:
    """It was sent because flags of the link changed, of a link that was there before."""

    def steps(self) -> Iterator[Step]:
        yield Step(LOAD_32, CHANGE_AT)
        yield Step(JUMP_IF_EQUAL, 0, fails_if=True)
        yield Step(JUMP_IF_EQUAL, ALL, fails_if=True)


@dataclass(frozen=True)
class LinkAttribute:
    """The attribute (IFLA_*) begins with these bytes."""

    kind: int
    begin: bytes

    def steps(self) -> Iterator[Step]:
        yield Step(LOAD_NUMBER, ATTRIBUTES_AT)
        yield Step(LOAD_X_NUMBER, self.kind)
        yield Step(LOAD_32, FIND_ATTRIBUTE)
        yield Step(JUMP_IF_EQUAL, 0, fails_if=True)
        yield Step(COPY_TO_X, 0)
        for at, byte in enumerate(self.begin):
            yield Step(LOAD_8_AT_X, NLATTR + at)
            yield Step(JUMP_IF_EQUAL, byte, fails_if=False)


Pattern = Sequence[Condition]
"""Conditions that all hold."""

HOST_END_AS_IT_SHALL_BE: Pattern = (
    Kind(RTM_NEWLINK),
    LinkFlag(IFF_UP),
    LinkAttribute(IFLA_IFNAME, NAME_HEAD.encode()),
    LinkAttribute(IFLA_ADDRESS, bytes.fromhex(GATEWAY_MAC.replace(":", ""))),
    LinkAttribute(IFLA_IFALIAS, ALIAS_HEAD.encode()),
)
"""A pod's host end that is up, has its MAC and its lease. The pod makes such events by switching
its own end on and off, as often as it likes."""
ONLY_FLAGS: Pattern = (Kind(RTM_NEWLINK), OnlyFlags())
"""Events of a link's flags; another MAC has an event of its own."""


def program(*, kinds: Sequence[int] = (), without: Sequence[Pattern] = ()) -> bytes:
    """Instructions that take events of these kinds, or all, but those that fit a pattern."""
    code = b"".join(_leave_out(pattern) for pattern in without)
    for kind in kinds:
        code += _take(Kind(kind))
    return code + INSTRUCTION.pack(RETURN, 0, 0, 0 if kinds else ALL)


def _leave_out(pattern: Pattern) -> bytes:
    return _assembled([step for one in pattern for step in one.steps()], result=0)


def _take(condition: Condition) -> bytes:
    return _assembled(list(condition.steps()), result=ALL)


def _assembled(steps: Sequence[Step], *, result: int) -> bytes:
    """Returns `result` if all conditions hold; else goes on behind."""
    code = b""
    for at, step in enumerate(steps):
        out = len(steps) - at  # over the steps that are left, and the RETURN
        yes, no = {None: (0, 0), True: (out, 0), False: (0, out)}[step.fails_if]
        code += INSTRUCTION.pack(step.code, yes, no, step.number)
    return code + INSTRUCTION.pack(RETURN, 0, 0, result)
