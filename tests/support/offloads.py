"""Switching what devices do for the stack: checksums, segmentation, GRO (ethtool's first ioctls).

Sources: include/uapi/linux/{sockios,ethtool}.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

from pycni.kernel import namespaces
from pycni.lab.topology import NETNS_DIR

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
    with (NETNS_DIR / netns).open() as entry:
        namespaces.inside(entry.fileno(), lambda: _switch(ifname, wanted))


def _switch(ifname: str, wanted: dict[str, bool]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for name, on in wanted.items():
            _call(asker, ifname, SWITCHES[name], int(on))
        for name, on in wanted.items():
            assert bool(_call(asker, ifname, GETTERS[name], 0)) == on, f"{ifname} {name}"


def _call(asker: socket.socket, ifname: str, command: int, value: int) -> int:
    """struct ethtool_value behind the pointer of a struct ifreq."""
    data = ctypes.create_string_buffer(struct.pack("=II", command, value))
    request = struct.pack("16sP16x", ifname.encode(), ctypes.addressof(data))
    fcntl.ioctl(asker, SIOCETHTOOL, request)
    return int(struct.unpack("=II", data.raw[:8])[1])
