# SPDX-License-Identifier: Apache-2.0
"""Own encapsulation against the kernel's: the same generated frames go through both, and the same
arrive. SEED=... repeats a run."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME
from pycni.names import GATEWAY_MAC
from support.kernel import open_iproute
from support.matrix import WAYS, Surroundings, captured, choose_way, surrounded

FRAMES = 400
SCTP, EXPERIMENT = 132, 253


UNDERLAYS = (4, 6) if os.environ.get("PYCNI_MATRIX") == "whole" else (6,)
"""Over IPv6 IPv4 pods cross families, which is where the programs do the most."""


@pytest.fixture(
    scope="module", params=[Surroundings(underlay, 1500) for underlay in UNDERLAYS], ids=str
)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with surrounded(request.param) as made:
        yield made


def generate(lab: Lab, chance: random.Random, mtu: int) -> list[bytes]:
    """Frames of the first pod for the second: mostly right, in all kinds, with a number inside."""
    source, target = lab.layout.pods
    with open_iproute(source.netns) as ipr:
        (index,) = ipr.link_lookup(ifname=POD_IFNAME)
        eth = Ether(src=next(iter(ipr.get_links(index))).get("address"), dst=GATEWAY_MAC)
    pairs = list(zip(lab.addresses(source), lab.addresses(target), strict=True))
    frames = []
    for number in range(FRAMES):
        src, dst = chance.choice(pairs)
        packet = ip4(chance, src, dst) if "." in src else ip6(chance, src, dst)
        size = chance.choice((8, 18, 100, 1000, mtu - 60, mtu - 41, mtu - 40, mtu - 28, mtu - 20))
        room = mtu - len(packet)
        data = chance.randbytes(max(4, min(size, room)))
        frame = bytearray(bytes(eth / packet / Raw(number.to_bytes(4, "big") + data[4:])))
        if chance.random() < 0.05:
            frame += bytes(min(chance.randrange(1, 20), len(eth) + mtu - len(frame)))
        if chance.random() < 0.10:
            frame[chance.randrange(14, min(len(frame), 54))] ^= 1 << chance.randrange(8)
        frames.append(bytes(frame))
    return frames


def ip4(chance: random.Random, src: str, dst: str) -> Packet:
    options = [IPOption_Timestamp()] if chance.random() < 0.1 else []
    packet = IP(
        src=src, dst=dst, options=options, tos=chance.randrange(256), ttl=chance.choice((1, 2, 64)),
        id=chance.randrange(1 << 16), flags=chance.choice((0, "DF")),
    )  # fmt: skip
    if chance.random() < 0.1:
        packet.flags, packet.frag = chance.choice((0, "MF")), chance.randrange(1, 100)
    if chance.random() < 0.1:
        packet.proto = chance.choice((SCTP, EXPERIMENT))
        return packet
    return packet / transport(chance, ICMP(type=0))


def ip6(chance: random.Random, src: str, dst: str) -> Packet:
    packet = IPv6(
        src=src, dst=dst, tc=chance.randrange(256), fl=chance.randrange(1 << 20),
        hlim=chance.choice((1, 2, 64)),
    )  # fmt: skip
    if chance.random() < 0.1:
        packet /= IPv6ExtHdrFragment(
            m=chance.randrange(2), offset=chance.randrange(100), id=chance.randrange(1 << 32)
        )
    if chance.random() < 0.1:
        packet /= IPv6ExtHdrDestOpt()
    if chance.random() < 0.1:
        packet.nh = chance.choice((SCTP, EXPERIMENT))
        return packet
    return packet / transport(chance, ICMPv6EchoRequest())


def transport(chance: random.Random, icmp: Packet) -> Packet:
    ports: dict[str, Any] = {
        "sport": chance.randrange(1, 1 << 16),
        "dport": chance.randrange(1, 1 << 16),
    }
    return chance.choice((UDP(**ports), UDP(**ports), TCP(**ports, flags="A"), icmp))


def test_the_same_packets_arrive_whoever_encapsulates(lab: Lab) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    sys.stdout.write(f"SEED={seed}\n")
    mtu = Surroundings(6, 1500).overlay_mtu  # the smaller of the two
    frames = generate(lab, random.Random(seed), mtu)
    arrived = {}
    for way in WAYS:
        choose_way(lab, way)

        arrived[way] = captured(lab, frames)

    reference = arrived["kernel", "kernel"]
    assert len(reference) > FRAMES / 2
    for way, found in arrived.items():
        assert found == reference, f"SEED={seed}: {way}: {differ(found, reference)}"


def differ(found: list[str], reference: list[str]) -> str:
    """The first frame that only one of them has."""
    missing = sorted(set(reference) - set(found))
    extra = sorted(set(found) - set(reference))
    return f"{len(missing)} missing, {len(extra)} extra; {missing[:1]} {extra[:1]}"
