# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/echo.py: echo requests and the replies to them, as bytes."""

from __future__ import annotations

import struct

import pytest

from pycni.kernel import echo

IDENTIFIER = 0xBEEF
IPV4_HEADER = bytes([0x46]) + bytes(23)
"""Of 24 bytes: with options."""


def checksum(data: bytes) -> int:
    """RFC 1071: 0 over a message whose checksum is right."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_request_of_ipv4_has_a_right_checksum(number: int) -> None:
    packet = echo.request(4, IDENTIFIER, number)

    assert packet[0] == 8
    assert checksum(packet) == 0
    assert packet[4:] == struct.pack("!HH", IDENTIFIER, number)


def test_the_kernel_fills_in_that_of_ipv6() -> None:
    assert echo.request(6, IDENTIFIER, 1) == struct.pack("!BBHHH", 128, 0, 0, IDENTIFIER, 1)


@pytest.mark.parametrize(("version", "kind", "head"), [(4, 0, IPV4_HEADER), (6, 129, b"")])
def test_a_reply_is_known_by_type_and_identifier(version: int, kind: int, head: bytes) -> None:
    def reply(kind: int, identifier: int) -> bytes:
        return head + struct.pack("!BBHHH", kind, 0, 0, identifier, 0)

    assert echo.is_reply(reply(kind, IDENTIFIER), version, IDENTIFIER)
    assert not echo.is_reply(reply(kind, IDENTIFIER + 1), version, IDENTIFIER)
    assert not echo.is_reply(reply(kind + 3, IDENTIFIER), version, IDENTIFIER)
    assert not echo.is_reply(reply(kind, IDENTIFIER)[:-1], version, IDENTIFIER)
    assert not echo.is_reply(b"", version, IDENTIFIER)
