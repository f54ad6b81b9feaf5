# SPDX-License-Identifier: Apache-2.0
"""from_underlay with own decapsulation: what goes straight into a pod, and what is left alone."""

from __future__ import annotations

import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from os import environ
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Timestamp, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from bpf import test_from_underlay
from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.dataplane import Dataplane
from bpf.outcomes import Action, dropped, into_pod, left_to_others
from bpf.test_random_packets import mutate, owner, run_fast
from bpf.world import (
    FAMILIES,
    FOREIGN_MAC,
    GATEWAY_MAC,
    GROUP_MAC,
    IPV4,
    IPV6,
    OVERLAY_MAC,
    PAYLOAD,
    POD_ONE_MAC,
    VETH_ONE,
    VNI,
    VXLAN_PORT,
    Endpoint,
    Family,
    Tables,
    cluster,
)

pytestmark = pytest.mark.root

TO_US = Ether(src=FOREIGN_MAC, dst="00:00:00:00:00:00")
"""test_run's packets come in on the loopback device, whose address is this: PACKET_HOST."""

INSIDE = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC)
PACKETS = 20_000
NOT_ECT, ECT1, ECT0, CE = range(4)


def outside(underlay: Family, **fields: Any) -> Packet:
    """Ethernet and IP from node two to node one."""
    return TO_US / underlay.ip(underlay.node_two, underlay.node_one, **fields)


def udp(**fields: Any) -> Packet:
    return UDP(**{"sport": 50000, "dport": VXLAN_PORT, "chksum": 0} | fields)


def vxlan(vni: int = VNI, **fields: Any) -> Packet:
    return VXLAN(vni=vni, flags="Instance", **fields)


def inner(family: Family, src: str = "", dst: str = "", **fields: Any) -> Packet:
    """From pod far to pod one."""
    return INSIDE / family.ip(src or family.pod_far, dst or family.pod_one, **fields) / PAYLOAD


def built(packet: Packet) -> Packet:
    """The same with all checksums and lengths in it."""
    return Ether(bytes(packet))


def unwrapped(inside: Packet, mac: str = POD_ONE_MAC) -> bytes:
    raw = bytes(inside)
    return bytes(Ether(src=GATEWAY_MAC, dst=mac))[:12] + raw[12:]


def delivered(family: Family, underlay: Family) -> Iterator[Case]:
    inside = inner(family)
    whole = outside(underlay) / udp() / vxlan() / inside
    yield Case("to a pod", whole, into_pod(VETH_ONE, unwrapped(inside)))
    tcp = INSIDE / family.ip(family.pod_far, family.pod_one) / TCP()
    whole = outside(underlay) / udp() / vxlan() / tcp
    yield Case("TCP", whole, into_pod(VETH_ONE, unwrapped(tcp)))
    padded = inside / Raw(bytes(7))
    whole = outside(underlay) / udp() / vxlan() / padded
    yield Case("padding inside", whole, into_pod(VETH_ONE, unwrapped(padded)))
    routed = outside(underlay, **({"ttl": 3} if underlay is IPV4 else {"hlim": 3}))
    yield Case(
        "from afar", routed / udp() / vxlan() / inside, into_pod(VETH_ONE, unwrapped(inside))
    )
    if family is IPV4:
        options = INSIDE / IP(
            src=family.pod_far, dst=family.pod_one, options=[IPOption_Timestamp()]
        )
        options /= PAYLOAD
        whole = outside(underlay) / udp() / vxlan() / options
        yield Case("options inside", whole, into_pod(VETH_ONE, unwrapped(options)))
        pod_far = IP(src=family.pod_far, dst=family.pod_one)
        for number, part in enumerate(fragment(pod_far / UDP() / Raw(bytes(100)), fragsize=48)):
            whole = outside(underlay) / udp() / vxlan() / INSIDE / part
            there = into_pod(VETH_ONE, unwrapped(INSIDE / part))
            yield Case(f"fragment {number} inside", whole, there)


def _outer_ip(underlay: Family) -> Iterator[tuple[str, Packet]]:
    inside = inner(IPV4)
    rest = udp() / vxlan() / inside
    one, two = underlay.node_one, underlay.node_two
    yield "to another MAC", Ether(src=FOREIGN_MAC, dst=POD_ONE_MAC) / underlay.ip(two, one) / rest
    yield "to another host", TO_US / underlay.ip(two, underlay.node_three) / rest
    if underlay is IPV4:
        options = IP(src=two, dst=one, options=[IPOption_Timestamp()])
        yield "options", TO_US / options / rest
        yield "a wrong checksum", TO_US / IP(src=two, dst=one, chksum=1) / rest
        yield "the first fragment", outside(underlay, flags="MF") / rest
    else:
        extension = IPv6(src=two, dst=one) / IPv6ExtHdrFragment(m=1)
        yield "the IPv6 fragment", TO_US / extension / rest


def _outer_udp(underlay: Family) -> Iterator[tuple[str, Packet]]:
    inside = inner(IPV4)
    yield "a UDP checksum", outside(underlay) / udp(chksum=None) / vxlan() / inside
    yield "a wrong UDP checksum", outside(underlay) / udp(chksum=0x1234) / vxlan() / inside
    length = 8 + 8 + len(inside)
    for wrong in (length - 1, length + 1, 8, 0):
        short = outside(underlay) / udp(len=wrong) / vxlan() / inside
        yield f"UDP length off by {wrong - length}", short
    yield "reserved bits", outside(underlay) / udp() / vxlan(reserved2=1) / inside
    yield "more flags", outside(underlay) / udp() / VXLAN(vni=VNI, flags="Instance+G") / inside
    trailing = bytes(outside(underlay) / udp() / vxlan() / inside) + bytes(3)
    yield "a trailer", Ether(trailing)
    yield "another port", outside(underlay) / udp(dport=VXLAN_PORT + 1) / vxlan() / inside


def _inner(family: Family, underlay: Family) -> Iterator[tuple[str, Packet]]:
    before = outside(underlay) / udp() / vxlan()
    for name, source in {
        "a pod of node three": family.pod_third,
        "a pod of this node": family.pod_two,
        "nobody": family.nobody,
        "the world": family.world,
        "node two itself": family.node_two,
    }.items():
        yield f"from {name}", before / inner(family, src=source)
    for name, target in {
        "nobody": family.nobody,
        "the gateway": family.gateway,
        "this node": family.node_one,
        "the world": family.world,
        "a group": family.group,
        "a pod of node two": family.pod_far,
    }.items():
        yield f"to {name}", before / inner(family, dst=target)
    eth = Ether(src=OVERLAY_MAC, dst=GROUP_MAC)
    pods = family.ip(family.pod_far, family.pod_one)
    yield "to a group's MAC", before / eth / pods / PAYLOAD
    yield "VLAN inside", before / INSIDE / Dot1Q(vlan=5) / pods / PAYLOAD
    yield "ARP inside", before / INSIDE / ARP(psrc=IPV4.pod_far, pdst=IPV4.pod_one)
    longer: dict[str, Any] = {"len": 500} if family is IPV4 else {"plen": 500}
    yield "longer inside than outside", before / inner(family, **longer)
    if family is IPV4:
        yield "a broken header inside", before / inner(family, ihl=4)


def left_alone(family: Family, underlay: Family) -> Iterator[Case]:
    """To the kernel, or to others. What the guard drops is test_from_underlay's."""
    groups = [_inner(family, underlay)]
    if family is IPV4:
        groups += [_outer_ip(underlay), _outer_udp(underlay)]
    for group in groups:
        for name, packet in group:
            plain = name in ("another port", "the IPv6 fragment")  # to the guard no VXLAN at all
            path = None if plain or name == "to another host" else "DEVICE"
            yield Case(name, built(packet), left_to_others(built(packet), path))
    whole = built(outside(underlay) / udp() / vxlan() / inner(family))
    shaped = cluster(underlay, shaped=True)
    yield Case("to a pod with a limit", whole, left_to_others(whole, "DEVICE"), shaped)
    tcp = INSIDE / family.ip(family.pod_far, family.pod_one) / TCP() / Raw(bytes(2000))
    bulk = built(outside(underlay) / udp() / vxlan() / tcp)
    there = Endpoint(VETH_ONE, POD_ONE_MAC, forwards=True)
    forwards = replace(cluster(underlay), endpoints={family.pod_one: there})
    yield Case(
        "segments to a pod that forwards",
        bulk,
        left_to_others(bulk, "DEVICE"),
        forwards,
        gso_size=900,
    )
    alone = into_pod(VETH_ONE, unwrapped(inner(family)))
    yield Case("one packet to a pod that forwards", whole, alone, forwards)
    udp_bulk = INSIDE / family.ip(family.pod_far, family.pod_one) / UDP() / Raw(bytes(2000))
    bulk = built(outside(underlay) / udp() / vxlan() / udp_bulk)
    yield Case("segments of UDP", bulk, left_to_others(bulk, "DEVICE"), gso_size=900)
    foreign = replace(cluster(underlay), remotes={})
    yield Case("from a node without pods", whole, left_to_others(whole, "DEVICE"), foreign)


def guarded(family: Family, underlay: Family) -> Iterator[Case]:
    inside = inner(family)
    one = underlay.node_one
    stranger = built(TO_US / underlay.ip(underlay.stranger, one) / udp() / vxlan() / inside)
    yield Case("from a stranger", stranger, dropped("UNKNOWN_VTEP", stranger))
    ours = built(TO_US / underlay.ip(one, one) / udp() / vxlan() / inside)
    yield Case("from ourselves", ours, dropped("UNKNOWN_VTEP", ours))
    other = built(outside(underlay) / udp() / vxlan(VNI + 1) / inside)
    yield Case("of another overlay", other, dropped("WRONG_VNI", other))
    whole = built(outside(underlay) / udp() / vxlan() / inside)
    yield Case("from a node that left", whole, dropped("UNKNOWN_VTEP", whole), Tables())


@in_all_families(delivered)
def test_vxlan_goes_straight_into_the_pod(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(own_dataplanes, "from_underlay", underlay, case)


@in_all_families(left_alone)
def test_what_is_not_plain_is_left_untouched(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(own_dataplanes, "from_underlay", underlay, case)


@in_all_families(guarded)
def test_the_guard_stands_as_before(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(own_dataplanes, "from_underlay", underlay, case)


def before(family: Family, underlay: Family) -> Iterator[Case]:
    for rows in ("guarded", "left_alone", "plain"):
        yield from getattr(test_from_underlay, rows)(family, underlay)


@in_all_families(before)
def test_other_hosts_packets_meet_what_they_met_before(
    own_dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(own_dataplanes, "from_underlay", underlay, case)


def test_switched_off_nothing_is_unwrapped(dataplane: Dataplane) -> None:
    packet = built(outside(IPV4) / udp() / vxlan() / inner(IPV4))

    assert dataplane.run("from_underlay", packet) == left_to_others(packet, "DEVICE")


def test_a_family_in_the_other_needs_the_kernels_help(
    make_dataplane: Callable[..., Dataplane],
) -> None:
    """Without it skb->protocol would stay that of the outer header."""
    for family in FAMILIES:
        for underlay in FAMILIES:
            dataplane = make_dataplane(underlay, own_encap=b"\1", decap_l3=b"\0")
            dataplane.fill(cluster(underlay))
            inside = inner(family)
            packet = built(outside(underlay) / udp() / vxlan() / inside)

            outcome = dataplane.run("from_underlay", packet)

            same = into_pod(VETH_ONE, unwrapped(inside))
            assert outcome == (same if family is underlay else left_to_others(packet, "DEVICE"))


# RFC 6040, figure 4: (inner, outer) to what the packet goes on with; None: it must be dropped,
# which the kernel does
MERGED = {
    (NOT_ECT, NOT_ECT): NOT_ECT, (NOT_ECT, ECT0): NOT_ECT, (NOT_ECT, ECT1): NOT_ECT,
    (NOT_ECT, CE): None,
    (ECT0, NOT_ECT): ECT0, (ECT0, ECT0): ECT0, (ECT0, ECT1): ECT1, (ECT0, CE): CE,
    (ECT1, NOT_ECT): ECT1, (ECT1, ECT0): ECT1, (ECT1, ECT1): ECT1, (ECT1, CE): CE,
    (CE, NOT_ECT): CE, (CE, ECT0): CE, (CE, ECT1): CE, (CE, CE): CE,
}  # fmt: skip


@pytest.mark.parametrize(("codepoints", "merged"), MERGED.items(), ids=map(str, MERGED))
@pytest.mark.parametrize("underlay", FAMILIES, ids=lambda one: one.name)
def test_congestion_marks_merge(
    own_dataplanes: Dataplanes,
    family: Family,
    underlay: Family,
    codepoints: tuple[int, int],
    merged: int | None,
) -> None:
    within, around = codepoints

    def field(of: Family, ecn: int) -> dict[str, Any]:
        return {"tos" if of is IPV4 else "tc": 0xB8 | ecn}

    packet = built(
        outside(underlay, **field(underlay, around))
        / udp() / vxlan() / inner(family, **field(family, within))
    )  # fmt: skip
    dataplane = own_dataplanes[underlay.name]
    dataplane.fill(cluster(underlay))

    outcome = dataplane.run("from_underlay", packet)

    if merged is None:
        assert outcome == left_to_others(packet, "DEVICE")
    else:
        after = unwrapped(inner(family, **field(family, merged)))
        assert outcome == into_pod(VETH_ONE, after)


def test_nothing_is_unwrapped_at_any_shorter_length(
    own_dataplanes: Dataplanes, family: Family
) -> None:
    """The outer headers still say the whole length, or that of what is left."""
    for underlay in FAMILIES:
        dataplane = own_dataplanes[underlay.name]
        dataplane.fill(cluster(underlay))
        whole = bytes(outside(underlay) / udp() / vxlan() / inner(family))
        outer = 14 + (20 if underlay is IPV4 else 40)
        for length in range(14, len(whole)):
            cuts = [whole[:length]]
            if length >= outer + 8:
                cuts.append(bytes(_honest(underlay, whole[outer + 8 : length])))
            for cut in cuts:
                outcome = dataplane.run("from_underlay", cut)

                assert outcome.packet == cut
                assert outcome.redirect is None, f"{length} bytes: {outcome}"


def _honest(underlay: Family, payload: bytes) -> Packet:
    return outside(underlay) / udp() / Raw(payload)


def fault(
    tables: Tables, underlay: Family, packet: bytes, after: bytes, ifindex: int
) -> str | None:
    """What is wrong with delivering this frame so, if anything is: read with its own few lines."""
    ip_length = 20 if underlay is IPV4 else 40
    start = 14 + ip_length + 16
    outer, vxlan_header, inside = (
        packet[14 : 14 + ip_length],
        packet[start - 8 : start],
        packet[start:],
    )
    source, target = (
        (outer[12:16], outer[16:20]) if underlay is IPV4 else (outer[8:24], outer[24:40])
    )
    if str(ip_address(target)) != underlay.node_one:
        return "not to us"
    if packet[14 + ip_length + 2 :][:2] != struct.pack("!H", VXLAN_PORT):
        return "another port"
    if vxlan_header != struct.pack("!II", 0x08000000, VNI << 8):
        return "another header"
    kind = inside[12:14]
    if kind == b"\x08\x00":
        src, dst = inside[26:30], inside[30:34]
    elif kind == b"\x86\xdd":
        src, dst = inside[22:38], inside[38:54]
    else:
        return "not IP inside"
    if owner(tables, str(ip_address(src))) != str(ip_address(source)):
        return "inner source is not of the sending node"
    ep = tables.endpoints.get(str(ip_address(dst)))
    if ep is None or ep.ifindex != ifindex:
        return "no pod behind that interface"
    if after[:6] != bytes.fromhex(ep.mac.replace(":", "")) or len(after) != len(inside):
        return "not what was inside"
    return None


@pytest.mark.parametrize("underlay", FAMILIES, ids=lambda one: one.name)
def test_no_random_packet_gets_in_by_mistake(
    own_dataplanes: Dataplanes, family: Family, underlay: Family
) -> None:
    seed = int(environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    sys.stdout.write(f"SEED={seed}\n")
    chance = random.Random(f"{seed} {family.name} {underlay.name}")
    dataplane, tables = own_dataplanes[underlay.name], cluster(underlay)
    dataplane.fill(tables)
    seeds = [
        bytes(outside(underlay) / udp() / vxlan() / inner(of, src=src, dst=dst))
        for of in (family, IPV6 if family is IPV4 else IPV4)
        for src in (of.pod_far, of.pod_third)
        for dst in (of.pod_one, of.pod_two, of.nobody)
    ]
    seen: Counter[Action] = Counter()
    for _ in range(PACKETS // 4):
        packet = mutate(chance, seeds)

        action, after, went = run_fast(dataplane, "from_underlay", packet)

        seen[action] += 1
        if action is Action.REDIRECT:
            wrong = fault(tables, underlay, packet, after, went.ifindex)
            assert wrong is None, f"SEED={seed}: {wrong}: {went}\n{packet.hex(' ')}"
        else:
            assert after == packet, f"SEED={seed}: changed\n{packet.hex(' ')}"
    assert {Action.REDIRECT, Action.UNSPEC, Action.SHOT} <= seen.keys(), f"SEED={seed}: {seen}"
