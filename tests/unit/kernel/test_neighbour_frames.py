# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/neighbour_frames.py, as scapy reads and writes such frames."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from pycni.cluster import IPAddress
from pycni.kernel.neighbour_frames import pack_announcement, pack_probe, read_claim

OURS, THEIRS = "02:00:00:00:00:01", "02:00:00:00:00:02"
FOUR, SIX = ip_address("192.0.2.5"), ip_address("2001:db8::12:3456")
EVERYBODY = "ff:ff:ff:ff:ff:ff"
ZERO, ALL_NODES = "00:00:00:00:00:00", "ff02::1"


def read(frame: bytes) -> Packet:
    """As scapy reads it, after it has computed checksums anew, which must be the same."""
    read = Ether(frame)
    again = read.copy()
    if IPv6 in again:
        del again[IPv6].payload.cksum
    assert bytes(again) == frame
    return read


def test_a_probe_of_ipv4_asks_for_nobody() -> None:
    frame = read(pack_probe(FOUR, OURS))

    assert (frame.src, frame.dst) == (OURS, EVERYBODY)
    asked = frame[ARP]
    assert (asked.op, asked.hwsrc, asked.psrc) == (1, OURS, "0.0.0.0")
    assert (asked.hwdst, asked.pdst) == (ZERO, str(FOUR))


def test_a_probe_of_ipv6_asks_the_group_of_the_address() -> None:
    frame = read(pack_probe(SIX, OURS))

    assert (frame.src, frame.dst) == (OURS, "33:33:ff:12:34:56")
    assert (frame[IPv6].src, frame[IPv6].dst) == ("::", "ff02::1:ff12:3456")
    assert (frame[IPv6].hlim, frame[ICMPv6ND_NS].tgt) == (255, str(SIX))


def test_an_announcement_says_who_has_the_address_now() -> None:
    four, six = read(pack_announcement(FOUR, OURS)), read(pack_announcement(SIX, OURS))

    assert (four[ARP].psrc, four[ARP].pdst, four[ARP].hwsrc) == (str(FOUR), str(FOUR), OURS)
    assert (six[IPv6].src, six[IPv6].dst) == (str(SIX), ALL_NODES)
    told = six[ICMPv6ND_NA]
    assert (told.tgt, told.O, told.S, told.R) == (str(SIX), 1, 0, 0)
    assert six[ICMPv6NDOptDstLLAddr].lladdr == OURS


ANSWER4 = ARP(op=2, hwsrc=THEIRS, psrc=str(FOUR), hwdst=OURS, pdst="0.0.0.0")
PROBE4 = ARP(op=1, hwsrc=THEIRS, psrc="0.0.0.0", pdst=str(FOUR))
QUESTION4 = ARP(op=1, hwsrc=THEIRS, psrc="192.0.2.9", pdst=str(FOUR))
ANSWER6 = IPv6(src=str(SIX), dst=ALL_NODES, hlim=255) / ICMPv6ND_NA(tgt=str(SIX))
PROBE6 = IPv6(src="::", dst=ALL_NODES, hlim=255) / ICMPv6ND_NS(tgt=str(SIX))
QUESTION6 = IPv6(src="2001:db8::9", dst=ALL_NODES, hlim=255) / ICMPv6ND_NS(tgt=str(SIX))
FROM_AFAR = IPv6(src=str(SIX), dst=ALL_NODES, hlim=64) / ICMPv6ND_NA(tgt=str(SIX))


@pytest.mark.parametrize(
    ("what", "claimed"),
    [
        (ANSWER4, FOUR),
        (PROBE4, FOUR),
        (QUESTION4, ip_address("192.0.2.9")),
        (ANSWER6, SIX),
        (PROBE6, SIX),
        (QUESTION6, None),
        (FROM_AFAR, None),
        (IPv6() / b"short", None),
        (b"", None),
    ],
)
def test_who_claims_an_address(what: Packet, claimed: IPAddress | None) -> None:
    frame = bytes(Ether(src=THEIRS, dst=OURS) / what)

    assert read_claim(frame) == (None if claimed is None else (claimed, THEIRS))


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_a_frame_that_is_cut_claims_nothing(length: int) -> None:
    for whole in (bytes(Ether(src=THEIRS) / ANSWER4), bytes(Ether(src=THEIRS) / ANSWER6)):
        if length < 42:
            assert read_claim(whole[: min(length, len(whole) - 1)]) is None
