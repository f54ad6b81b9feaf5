# SPDX-License-Identifier: Apache-2.0
"""ICMP errors about translated packets: who gets one finds the packet that he has sent."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from bpf.outcomes import Outcome, into_pod, passed, to_node, with_macs
from bpf.service_world import (
    CLIENT,
    PORT,
    VIP,
    End,
    Services,
    answer,
    opening,
    packet,
    request,
    swapped,
    target,
    translated,
)
from bpf.world import (
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    POD_ONE_MAC,
    POD_TWO_MAC,
    VETH_TWO,
    Family,
)

pytestmark = pytest.mark.root

QUOTED = 8
"""Bytes behind the IP header that every error quotes, RFC 792."""


def error(
    family: Family, about: Packet, *, src: str, dst: str, src_mac: str = POD_ONE_MAC,
    kind: str = "port", behind: int = 1000,
) -> Packet:  # fmt: skip
    """An error of `src` to `dst` that quotes a packet, as it was sent."""
    quoted = bytes(about)[14:][: (20 if family is IPV4 else 40) + behind]
    icmp: Packet
    if family is IPV4:
        icmp = {"port": ICMP(type=3, code=3), "too big": ICMP(type=3, code=4, nexthopmtu=1300),
                "time": ICMP(type=11), "parameter": ICMP(type=12)}[kind]  # fmt: skip
    else:
        icmp = ICMPv6PacketTooBig(mtu=1300) if kind == "too big" else ICMPv6DestUnreach(code=4)
    made = Ether(src=src_mac, dst=GATEWAY_MAC) / family.ip(src, dst) / icmp / quoted
    return Ether(bytes(made))


def arrived(expected: Packet) -> Outcome:
    return passed(with_macs(expected, src=GATEWAY_MAC, dst=POD_ONE_MAC), "POD")


@pytest.mark.parametrize("kind", ["port", "too big", "time", "parameter"])
@pytest.mark.parametrize("behind", [QUOTED, 1000], ids=["8 bytes", "all"])
def test_a_client_gets_an_error_about_what_it_sent(
    services: Services, family: Family, protocol: str, kind: str, behind: int
) -> None:
    """S-089, S-091, S-092: from a router on the way, which keeps its address."""
    end = End(3, family.pod_far, target(protocol))
    services.put(VIP[family.name], [end], protocol=protocol)
    services.send(request(family, protocol))
    before = services.raw_flows()
    ends: dict[str, Any] = {
        "src": family.world, "dst": family.pod_one, "kind": kind, "behind": behind,
    }  # fmt: skip
    sent = error(family, translated(family, protocol, end), **ends)

    outcome = services.dataplane.run("to_container", sent)

    quoted = bytes(request(family, protocol))
    expected = error(
        family, with_sums_of(translated(family, protocol, end), quoted, family), **ends
    )
    assert outcome == arrived(expected)
    assert services.raw_flows() == before


def with_sums_of(sent: Packet, quoted: bytes, family: Family) -> Packet:
    """What is quoted, with the transport's sum of the packet that was really sent."""
    raw, start = bytearray(quoted), 14 + (20 if family is IPV4 else 40)
    raw[start + 4 :] = bytes(sent)[start + 4 :]
    return Ether(bytes(raw))


def test_an_error_of_the_endpoint_comes_from_the_service(
    services: Services, family: Family
) -> None:
    """S-089: on this node."""
    end = End(3, family.pod_two)
    services.put(VIP[family.name], [end], protocol="UDP")
    services.send(request(family, "UDP"))
    services.dataplane.fill(swapped())
    about = translated(family, "UDP", end)
    sent = error(family, about, src=family.pod_two, dst=family.pod_one, src_mac=POD_TWO_MAC)

    outcome = services.send(sent)

    quoted = with_sums_of(about, bytes(request(family, "UDP")), family)
    expected = error(family, quoted, src=VIP[family.name], dst=family.pod_one)
    assert outcome == into_pod(VETH_TWO, with_macs(expected, src=GATEWAY_MAC, dst=POD_ONE_MAC))


def test_an_endpoint_gets_an_error_about_what_it_answered(
    services: Services, family: Family
) -> None:
    """S-090: a client sends it to the Service."""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end], protocol="UDP")
    services.send(request(family, "UDP"))
    real = answer(family, "UDP", end)
    ends = (VIP[family.name], PORT, family.pod_one, CLIENT)
    sent = error(family, packet(family, "UDP", ends), src=family.pod_one, dst=VIP[family.name])

    outcome = services.send(sent)

    quoted = with_sums_of(packet(family, "UDP", ends), bytes(real), family)
    expected = error(family, quoted, src=family.pod_one, dst=family.pod_far)
    assert outcome == to_node(IPV4.node_two, with_macs(expected, src=OVERLAY_MAC, dst=GATEWAY_MAC))


def test_options_of_the_quoted_packet_are_passed_over(services: Services) -> None:
    """S-092"""
    end = End(3, IPV4.pod_far)
    services.put(VIP["IPv4"], [end], protocol="UDP")
    services.send(request(IPV4, "UDP"))
    options = [IPOption_NOP()] * 4
    about, quoted = (
        Ether(bytes(one)) for one in (translated(IPV4, "UDP", end), request(IPV4, "UDP"))
    )
    for one in (about, quoted):
        one[IP].options = options
        del one[IP].ihl, one[IP].len, one[IP].chksum
    quoted["UDP"].chksum = about["UDP"].chksum
    ends: dict[str, Any] = {"src": IPV4.world, "dst": IPV4.pod_one}

    outcome = services.dataplane.run("to_container", error(IPV4, about, **ends))

    assert outcome == arrived(error(IPV4, quoted, **ends))


def test_an_error_about_another_packet_stays_as_it_is(services: Services, family: Family) -> None:
    services.put(VIP[family.name], [End(3, family.pod_far)], protocol="UDP")
    services.send(request(family, "UDP"))
    other = packet(family, "UDP", (family.pod_one, CLIENT + 1, family.pod_far, 9), **opening("UDP"))
    sent = error(family, other, src=family.world, dst=family.pod_one)

    assert services.dataplane.run("to_container", sent) == arrived(sent)


def test_a_later_fragment_that_is_quoted_has_no_ports(services: Services) -> None:
    """S-092"""
    end = End(3, IPV4.pod_far)
    services.put(VIP["IPv4"], [end], protocol="UDP")
    services.send(request(IPV4, "UDP"))
    about = Ether(bytes(translated(IPV4, "UDP", end)))
    about[IP].frag = 5
    del about[IP].chksum
    sent = error(IPV4, about, src=IPV4.world, dst=IPV4.pod_one)

    assert services.dataplane.run("to_container", sent) == arrived(sent)
