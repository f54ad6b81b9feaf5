# SPDX-License-Identifier: Apache-2.0
"""A network between nodes that drops some packets: a program at the bridge that joins them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from loader.bpf import load_instructions
from loader.places import EGRESS
from pycni.kernel.rtnl import Rtnl
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from support.labs import within

ADDRESS_AT, PROTOCOL_AT, DPORT_AT = 12, 23, 36
"""Bytes into a frame with Ethernet, IPv4 without options, and UDP."""
UDP = 17
LOAD_8, LOAD_16 = 0x30, 0x28
MOVE_CONTEXT, MOVE, UNLESS, EXIT = 0xBF, 0xB7, 0x55, 0x95
PASS_ON, SHOT = -1, 2


def instruction(code: int, registers: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, registers, offset, value)


def eats_udp(port: int) -> bytes:
    """A classifier that drops IPv4 UDP to a port."""
    return b"".join(
        (
            instruction(MOVE_CONTEXT, 0x16),
            instruction(LOAD_8, value=PROTOCOL_AT),
            instruction(UNLESS, offset=4, value=UDP),
            instruction(LOAD_16, value=DPORT_AT),
            instruction(UNLESS, offset=2, value=port),
            instruction(MOVE, value=SHOT),
            instruction(EXIT),
            instruction(MOVE, value=PASS_ON),
            instruction(EXIT),
        )
    )


@contextmanager
def vxlan_eaten(lab: Lab, node: LabNode, *, port: int) -> Iterator[None]:
    """Nothing to that UDP port reaches the node meanwhile."""
    number = lab.layout.nodes.index(node) + 1

    def begin() -> None:
        with Rtnl() as rtnl, load_instructions("eater", eats_udp(port)) as program:
            ifindex = rtnl.ifindex(f"port{number}")
            rtnl.add_clsact(ifindex)
            rtnl.add_filter(ifindex, EGRESS, fd=program.fd, name="eater", priority=1, handle=1)

    def end() -> None:
        with Rtnl() as rtnl:
            rtnl.delete_clsact(rtnl.ifindex(f"port{number}"))

    within(lab.layout.underlay_netns, begin)
    try:
        yield
    finally:
        within(lab.layout.underlay_netns, end)
