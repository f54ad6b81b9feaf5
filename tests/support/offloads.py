# SPDX-License-Identifier: Apache-2.0
"""Switching what devices do for the stack: checksums, segmentation, GRO (ethtool's first ioctls).

Sources: include/uapi/linux/{sockios,ethtool}.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from support.labs import within

SIOCETHTOOL = 0x8946
SWITCHES = {"tx": 0x17, "sg": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""ETHTOOL_STXCSUM, SSG, STSO, SGSO, SGRO."""
GETTERS = {"tx": 0x16, "sg": 0x18, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}

ALL_ON = dict.fromkeys(SWITCHES, True)
ALL_OFF = dict.fromkeys(reversed(SWITCHES), False)
SIMPLE_NIC = ALL_OFF | {"gro": True}
"""One that knows no tunnels: the kernel segments before it, and joins again behind it."""


def switch(netns: str, ifname: str, **wanted: bool) -> None:
    """Switch offloads of an interface; what the kernel leaves as it was fails here."""
    within(netns, lambda: _switch(ifname, wanted))


@contextmanager
def off(links: Sequence[tuple[str, str]]) -> Iterator[None]:
    """TSO, GSO and GRO off on each (namespace, interface); then as they were."""
    with ExitStack() as undo:
        for netns, ifname in links:
            before = within(netns, partial(_state, ifname, ("tso", "gso", "gro")))
            undo.callback(switch, netns, ifname, **before)
            switch(netns, ifname, **dict.fromkeys(before, False))
        yield


def _state(ifname: str, names: Sequence[str]) -> dict[str, bool]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        return {name: bool(_call(asker, ifname, GETTERS[name], 0)) for name in names}


def _switch(ifname: str, wanted: dict[str, bool]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for name, on in wanted.items():
            _call(asker, ifname, SWITCHES[name], int(on))
    for name, on in _state(ifname, tuple(wanted)).items():
        assert on == wanted[name], f"{ifname} {name}"


def _call(asker: socket.socket, ifname: str, command: int, value: int) -> int:
    """struct ethtool_value behind the pointer of a struct ifreq."""
    data = ctypes.create_string_buffer(struct.pack("=II", command, value))
    request = struct.pack("16sP16x", ifname.encode(), ctypes.addressof(data))
    fcntl.ioctl(asker, SIOCETHTOOL, request)
    return int(struct.unpack("=II", data.raw[:8])[1])
