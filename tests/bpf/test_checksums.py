# SPDX-License-Identifier: Apache-2.0
"""Sums of translated packets, random ones: as scapy computes them, and back as they were."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.outcomes import with_macs
from bpf.service_world import (
    CLIENT,
    VIP,
    End,
    Services,
    answering,
    opening,
    packet,
    target,
)
from bpf.world import GATEWAY_MAC, POD_ONE_MAC, Family

pytestmark = pytest.mark.root

ROUNDS = 150
SUM_OFF = {"TCP": 16, "UDP": 6}


def again(packet: bytes) -> bytes:
    """The same with sums that are computed anew."""
    found = Ether(packet)
    for layer in ("IP", "TCP", "UDP"):
        if layer in found:
            del found[layer].chksum
    return bytes(found)


def random_packet(family: Family, protocol: str, number: int, port: int) -> Packet:
    data = random.randbytes(random.randrange(1, 200))
    more: dict[str, Any] = {}
    if protocol == "TCP":
        more = {"flags": "S", "seq": random.getrandbits(32)}
    ends = (family.pod_one, CLIENT + number, VIP[family.name], port)
    return packet(family, protocol, ends, data=data, **more)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_translated_packets_have_right_sums_and_answers_too(
    services: Services, family: Family, protocol: str
) -> None:
    """S-098, S-099"""
    random.seed(13)
    port = random.randrange(1, 65536)
    ends = [End(at, family.pod_far, random.randrange(1, 65536)) for at in range(1, 30)]
    services.put(VIP[family.name], ends, protocol=protocol, number=port)

    for number in range(ROUNDS):
        outcome = services.send(random_packet(family, protocol, number, port))
        assert outcome.packet == again(outcome.packet)
        assert outcome.path == "DEVICE"

    for key, flow in services.flows().items():
        if flow.flags & 1:
            continue
        more = answering(protocol)
        sent = packet(family, protocol, key, data=random.randbytes(90), **more)
        outcome = services.dataplane.run("to_container", sent)
        wanted = packet(family, protocol, flow.to, data=bytes(sent)[-90:], **more)
        assert outcome.packet == bytes(with_macs(wanted, src=GATEWAY_MAC, dst=POD_ONE_MAC))


def test_a_udp_sum_that_becomes_zero_is_all_ones(services: Services, family: Family) -> None:
    """S-099"""
    services.put(VIP[family.name], [End(1, family.pod_far, target("UDP"))], protocol="UDP")
    ends = (family.pod_one, CLIENT, VIP[family.name], 80)
    there = (family.pod_one, CLIENT, family.pod_far, target("UDP"))
    plain = bytes(packet(family, "UDP", there, data=bytes(8)))
    at = 14 + (20 if family.bits == 32 else 40) + SUM_OFF["UDP"]
    data = plain[at : at + 2] + bytes(6)  # so the sum of the translated packet comes out as zero

    outcome = services.send(packet(family, "UDP", ends, data=data))

    assert outcome.packet[at : at + 2] == b"\xff\xff"
    assert outcome.packet == again(outcome.packet)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_segments_that_the_kernel_will_sum_are_translated(
    services: Services, family: Family, protocol: str
) -> None:
    """S-098: a packet of several segments keeps their size."""
    end = End(1, family.pod_far, target(protocol))
    services.put(VIP[family.name], [end], protocol=protocol)
    more = opening(protocol)
    ends = (family.pod_one, CLIENT, VIP[family.name], 80)
    sent = packet(family, protocol, ends, data=bytes(1200), **more)

    outcome = services.send(sent, gso_size=400)

    assert outcome.path == "DEVICE"
    assert outcome.packet == again(outcome.packet)
