# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/icmp_errors.py: which errors are about packets of ours. Packets are scapy's."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from pycni.kernel.icmp_errors import read_error4, read_error6

PORT = 8472
ROUTER, NODE, FAR = "198.51.100.1", "192.0.2.1", "192.0.2.7"
NODE6, FAR6 = "2001:db8::1", "2001:db8::7"
OURS, OTHERS = UDP(sport=50000, dport=PORT), UDP(sport=PORT, dport=53)
IP6_HEADER = 40


def error4(quoted: Packet, *, kind: int = 3, code: int = 4, **fields: object) -> bytes:
    icmp = ICMP(type=kind, code=code, nexthopmtu=1400)
    return bytes(IP(src=ROUTER, dst=NODE, **fields) / icmp / quoted)


def error6(quoted: Packet, message: Packet | None = None) -> bytes:
    """Without the IPv6 header, as a raw socket gives it."""
    return bytes(IPv6() / (message or ICMPv6PacketTooBig(mtu=1400)) / quoted)[IP6_HEADER:]


@pytest.mark.parametrize("options", [b"", b"\1\1\1\1"], ids=["plain", "with options"])
@pytest.mark.parametrize("payload", [b"", bytes(500)], ids=["8 bytes quoted", "more"])
def test_an_error_about_vxlan_names_the_node(options: bytes, payload: bytes) -> None:
    """A router may quote 8 bytes of what is behind the IP header: RFC 792."""
    fields = {"options": options} if options else {}
    quoted = IP(src=NODE, dst=FAR, **fields) / OURS / Raw(payload)

    assert read_error4(error4(quoted, **fields), PORT) == ip_address(FAR)
    assert read_error6(error6(IPv6(dst=FAR6) / OURS / Raw(payload)), PORT) == ip_address(FAR6)


@pytest.mark.parametrize("protocol", [4, 41])
def test_an_error_about_ipip_names_the_node(protocol: int) -> None:
    inner = Raw(bytes(8))

    assert read_error4(error4(IP(dst=FAR, proto=protocol) / inner), PORT) == ip_address(FAR)
    assert read_error6(error6(IPv6(dst=FAR6, nh=protocol) / inner), PORT) == ip_address(FAR6)


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("another port", error4(IP(dst=FAR) / OTHERS)),
        ("TCP", error4(IP(dst=FAR) / TCP(dport=PORT))),
        ("another code", error4(IP(dst=FAR) / OURS, code=3)),
        ("another type", error4(IP(dst=FAR) / OURS, kind=11, code=4)),
    ],
)
def test_other_errors_are_not_ours(why: str, data: bytes) -> None:
    assert read_error4(data, PORT) is None, why


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("another port", error6(IPv6(dst=FAR6) / OTHERS)),
        ("TCP", error6(IPv6(dst=FAR6) / TCP(dport=PORT))),
        ("unreachable", error6(IPv6(dst=FAR6) / OURS, ICMPv6DestUnreach())),
    ],
)
def test_other_icmpv6_errors_are_not_ours(why: str, data: bytes) -> None:
    assert read_error6(data, PORT) is None, why


def test_no_prefix_of_an_error_is_misread() -> None:
    whole4 = error4(IP(src=NODE, dst=FAR) / OURS)
    whole6 = error6(IPv6(src=NODE6, dst=FAR6) / OURS)

    found4 = {read_error4(whole4[:length], PORT) for length in range(len(whole4) - 4)}
    found6 = {read_error6(whole6[:length], PORT) for length in range(len(whole6) - 4)}

    assert found4 == found6 == {None}
