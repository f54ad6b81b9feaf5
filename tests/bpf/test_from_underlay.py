# SPDX-License-Identifier: Apache-2.0
"""from_underlay: which VXLAN may reach the vxlan device's socket, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Timestamp, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.outcomes import dropped, left_to_others
from bpf.world import (
    BROADCAST_MAC,
    EMPTY,
    FOREIGN_MAC,
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    PAYLOAD,
    POD_ONE_MAC,
    VNI,
    VXLAN_PORT,
    Family,
)

pytestmark = pytest.mark.root

UPLINK = Ether(src=FOREIGN_MAC, dst=POD_ONE_MAC)
I_FLAG = "Instance"
RESERVED = 0xFF
MARK_OF_OTHERS = 0x7


def vxlan_header(vni: int = VNI, flags: str = I_FLAG) -> Packet:
    return VXLAN(vni=vni, flags=flags)


def vxlan(family: Family, underlay: Family, src: str, dst: str, header: Packet) -> Packet:
    """Pod far to pod one, from the node `src` to `dst`."""
    inside = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC) / family.ip(family.pod_far, family.pod_one)
    outside = underlay.ip(src, dst) / UDP(sport=50000, dport=VXLAN_PORT)
    return UPLINK / outside / header / inside / PAYLOAD


def guarded(family: Family, underlay: Family) -> Iterator[Case]:
    one, two = underlay.node_one, underlay.node_two
    packet = vxlan(family, underlay, two, one, vxlan_header())
    yield Case("from a node", packet, left_to_others(packet, "DEVICE"))
    yield Case("from a node that left", packet, dropped("UNKNOWN_VTEP", packet), EMPTY)
    packet = vxlan(family, underlay, underlay.stranger, one, vxlan_header())
    yield Case("from a stranger", packet, dropped("UNKNOWN_VTEP", packet))
    packet = vxlan(family, underlay, one, one, vxlan_header())
    yield Case("from ourselves", packet, dropped("UNKNOWN_VTEP", packet))
    packet = vxlan(family, underlay, two, one, vxlan_header(VNI + 1))
    yield Case("VNI of another overlay", packet, dropped("WRONG_VNI", packet))
    packet = vxlan(family, underlay, two, one, vxlan_header(VNI + (1 << 23)))
    yield Case("VNI with its top bit set", packet, dropped("WRONG_VNI", packet))
    packet = vxlan(family, underlay, two, one, vxlan_header(VNI << 8))
    yield Case("VNI in the wrong place", packet, dropped("WRONG_VNI", packet))
    header = vxlan_header()
    header.reserved2 = RESERVED
    packet = vxlan(family, underlay, two, one, header)
    yield Case("reserved bits", packet, left_to_others(packet, "DEVICE"))
    packet = vxlan(family, underlay, two, one, vxlan_header(flags=""))
    yield Case("no VNI flag", packet, dropped("BAD_HEADER", packet))
    for length in range(8):
        cut = UPLINK / underlay.ip(two, one) / UDP(dport=VXLAN_PORT) / Raw(bytes(length))
        yield Case(f"VXLAN header of {length} bytes", cut, dropped("TRUNCATED", cut))
    if underlay is IPV4:
        outside = IP(src=two, dst=one, options=[IPOption_Timestamp()]) / UDP(dport=VXLAN_PORT)
        packet = UPLINK / outside / vxlan_header(VNI + 1) / PAYLOAD
        yield Case("options before a wrong VNI", packet, dropped("WRONG_VNI", packet))
        first, *_ = fragment(vxlan(family, underlay, two, one, vxlan_header(VNI + 1)), fragsize=48)
        yield Case("first fragment", first, dropped("WRONG_VNI", first))


def left_alone(family: Family, underlay: Family) -> Iterator[Case]:
    one, strange = underlay.node_one, underlay.stranger
    for name, packet in {
        "VXLAN to another host": vxlan(family, underlay, strange, underlay.node_three, VXLAN()),
        "UDP to another port": UPLINK / underlay.ip(strange, one) / PAYLOAD,
        "TCP to the VXLAN port": UPLINK / underlay.ip(strange, one) / TCP(dport=VXLAN_PORT),
        "ARP": Ether(src=FOREIGN_MAC, dst=BROADCAST_MAC) / ARP(pdst=IPV4.node_one),
        "no IP": Ether(src=FOREIGN_MAC, dst=BROADCAST_MAC, type=0x88CC) / Raw(bytes(46)),
        "no more than an IP header": UPLINK / underlay.ip(strange, one),
        "UDP header cut short": UPLINK / _only_udp(underlay, strange, one) / Raw(bytes(3)),
        "multicast": Ether(src=FOREIGN_MAC, dst=BROADCAST_MAC)
        / underlay.ip(strange, underlay.group)
        / UDP(dport=VXLAN_PORT),
    }.items():
        yield Case(name, packet, left_to_others(packet))
    if underlay is IPV4:
        whole = vxlan(family, underlay, strange, one, VXLAN())
        for number, part in enumerate(fragment(whole, fragsize=48)[1:], 1):
            yield Case(f"fragment {number}", part, left_to_others(part))
        looks_like_udp = bytes(UDP(dport=VXLAN_PORT) / VXLAN())
        packet = UPLINK / IP(src=strange, dst=one, proto=17, frag=1) / Raw(looks_like_udp)
        yield Case("data of a fragment that passes for a header", packet, left_to_others(packet))
        packet = UPLINK / IP(src=strange, dst=one, ihl=2) / UDP(dport=VXLAN_PORT)
        yield Case("broken header", packet, left_to_others(packet))
    else:
        ip6 = IPv6(src=strange, dst=one)
        packet = UPLINK / ip6 / IPv6ExtHdrFragment(m=1) / UDP(dport=VXLAN_PORT) / VXLAN()
        yield Case("fragment", packet, left_to_others(packet))


def plain(_family: Family, underlay: Family) -> Iterator[Case]:
    one, two = underlay.node_one, underlay.node_two
    for name, protocol in {"UDP": UDP(dport=5353), "TCP": TCP(dport=VXLAN_PORT)}.items():
        packet = UPLINK / underlay.ip(two, one) / protocol / Raw(bytes(8))
        untouched = left_to_others(packet, mark=MARK_OF_OTHERS)
        yield Case(f"{name} from a node", packet, untouched, mark=MARK_OF_OTHERS)
        packet = UPLINK / underlay.ip(two, underlay.node_three) / protocol
        yield Case(f"{name} from a node to another", packet, left_to_others(packet))
        packet = UPLINK / underlay.ip(underlay.world, one) / protocol
        yield Case(f"{name} from the world", packet, left_to_others(packet))
    if underlay is IPV4:
        _, second = fragment(UPLINK / underlay.ip(two, one) / UDP() / Raw(bytes(80)), fragsize=48)
        yield Case("later fragment from a node", second, left_to_others(second))


def _only_udp(underlay: Family, src: str, dst: str) -> Packet:
    return underlay.ip(src, dst, **({"proto": 17} if underlay is IPV4 else {"nh": 17}))


@in_all_families(guarded)
def test_only_nodes_reach_the_overlay(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "from_underlay", underlay, case)


@in_all_families(plain)
def test_what_nodes_send_without_vxlan_passes_untouched(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_underlay", underlay, case)


@in_all_families(left_alone)
def test_what_is_not_ours_passes_untouched(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "from_underlay", underlay, case)
