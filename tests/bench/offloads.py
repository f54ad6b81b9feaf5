"""Segmentation offloads of links, off for a while (ethtool(8), linux/ethtool.h)."""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fcntl import ioctl

from pycni.kernel.namespaces import inside
from pycni.lab.topology import NETNS_DIR

SIOCETHTOOL = 0x8946
SETTERS = (0x1F, 0x24, 0x2C)
"""ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO."""
GETTERS = (0x1E, 0x23, 0x2B)


@contextmanager
def off(links: Sequence[tuple[str, str]]) -> Iterator[None]:
    """TSO, GSO and GRO off on (namespace, interface) each; then as they were."""
    with ExitStack() as undo:
        for netns, ifname in links:
            for getter, setter in zip(GETTERS, SETTERS, strict=True):
                before = _ask(netns, ifname, getter)
                undo.callback(_ask, netns, ifname, setter, before)
                _ask(netns, ifname, setter, 0)
        yield


def _ask(netns: str, ifname: str, command: int, value: int = 0) -> int:
    """One struct ethtool_value, there and back."""
    exchanged = array.array("I", [command, value])

    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sP", ifname.encode(), exchanged.buffer_info()[0])
            ioctl(any_socket, SIOCETHTOOL, request.ljust(40, b"\0"))

    with (NETNS_DIR / netns).open() as namespace:
        inside(namespace.fileno(), ask)
    return exchanged[1]
