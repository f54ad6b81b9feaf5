# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/echo_socket.py: requests and replies as bytes."""

from __future__ import annotations

import pytest

from pycni.kernel.echo_socket import REPLY, TOKEN, checksum, pack, unpack

TOKENS = bytes(range(TOKEN))
IP_HEADER = bytes([0x45]) + bytes(19)


def reply(version: int, token: bytes = TOKENS) -> bytes:
    head = IP_HEADER if version == 4 else b""
    return head + bytes([REPLY[version]]) + pack(version, token)[1:]


@pytest.mark.parametrize("version", [4, 6])
def test_a_reply_has_the_token_of_its_request(version: int) -> None:
    assert unpack(version, reply(version)) == TOKENS


def test_the_checksum_of_icmp_is_right() -> None:
    assert checksum(pack(4, TOKENS)) == 0


@pytest.mark.parametrize(
    ("version", "data"),
    [
        (4, b""),
        (4, IP_HEADER),
        (4, IP_HEADER + pack(4, TOKENS)),
        (4, reply(4) + b"more"),
        (4, reply(4)[:-1]),
        (6, b""),
        (6, pack(6, TOKENS)),
        (6, reply(6, TOKENS[:-1])),
    ],
    ids=["empty4", "header", "request4", "longer", "shorter", "empty6", "request6", "other"],
)
def test_what_is_no_reply_of_ours_has_no_token(version: int, data: bytes) -> None:
    assert unpack(version, data) is None
