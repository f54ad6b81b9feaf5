# SPDX-License-Identifier: Apache-2.0
"""The nodes that answer beside a bench: what they make of a probe."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from bench.answering import turned

NODE, OTHER = "10.0.0.1", "10.0.7.1"
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
BACK = {"src": MACS["dst"], "dst": MACS["src"]}


def inside(*layers: Packet) -> bytes:
    packet: Packet = VXLAN(vni=7)
    for layer in layers:
        packet /= layer
    return bytes(packet)


@pytest.mark.parametrize("sequence", [0, 7, 0xFFFF])
@pytest.mark.parametrize("token", [b"", b"\xff" * 16, b"token"])
def test_an_echo_request_is_answered(sequence: int, token: bytes) -> None:
    asked = inside(Ether(**MACS), IP(src=NODE, dst=OTHER), ICMP(type=8, id=3, seq=sequence), token)
    answered = inside(
        Ether(**BACK), IP(src=OTHER, dst=NODE), ICMP(type=0, id=3, seq=sequence), token
    )

    assert turned(asked) == answered


def test_nothing_else_is_answered() -> None:
    assert turned(inside(Ether(**MACS), IP(src=NODE, dst=OTHER), ICMP(type=0))) == b""
    assert turned(inside(Ether(**MACS), IP(src=NODE, dst=OTHER), UDP(sport=0x0800, dport=2))) == b""
    assert turned(b"short") == b""
