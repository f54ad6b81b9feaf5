# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/sock_diag.py: what a dump says of a socket."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest

from pycni.kernel.sock_diag import read

COOKIE = 0x1_0000_0007


def answer(family: int, packed: bytes) -> bytes:
    """A struct inet_diag_msg of a socket whose peer is at port 53."""
    ends = struct.pack("!HH", 40000, 53) + bytes(16) + packed.ljust(16, b"\0")
    return bytes([family, 1, 0, 0]) + ends + struct.pack("=III", 2, 7, 1) + bytes(20)


@pytest.mark.parametrize(
    ("family", "address", "packed"),
    [
        (socket.AF_INET, "10.1.0.2", ip_address("10.1.0.2").packed),
        (socket.AF_INET6, "fd00::2", ip_address("fd00::2").packed),
        (socket.AF_INET6, "::ffff:10.1.0.2", ip_address("::ffff:10.1.0.2").packed),
    ],
)
def test_a_socket_has_its_peer_and_the_cookie_by_which_programs_know_it(family, address, packed):
    body = answer(family, packed)

    found = read(body)

    assert (found.cookie, found.address, found.port) == (COOKIE, ip_address(address), 53)
    assert found.identity == body[4:52]
