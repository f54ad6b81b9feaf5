# SPDX-License-Identifier: Apache-2.0
"""All programs: packets that nobody would write, and what must hold for each of them.

The check reads packets with its own few lines, not with the programs' or scapy's: a redirect is
right only if the maps of `cluster()` say so for the addresses at the places where IP has them.
SEED=... repeats a run, PACKETS=... makes it shorter or longer.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Timestamp
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from bpf.cases import Dataplanes
from bpf.dataplane import FIRST, REDIRECT_RECORD, Dataplane
from bpf.outcomes import BPF_F_INGRESS, Action, Redirect
from bpf.world import (
    FAMILIES,
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    PAYLOAD,
    POD_ONE_MAC,
    STACK_IFINDEX,
    VETH_ONE,
    VNI,
    VXLAN_IFINDEX,
    VXLAN_PORT,
    Family,
    Fib,
    Tables,
    cluster,
)
from loader.places import PROGRAMS

pytestmark = pytest.mark.root

PACKETS = int(os.environ.get("PACKETS", 100_000))
LONGEST = 1600
ETH_P_IP, ETH_P_IPV6, ETH_P_ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
INTERESTING = (0x00, 0x01, 0x3A, 0x40, 0x45, 0x60, 0x7F, 0x80, 0x87, 0xFF)


def seeds(family: Family, underlay: Family) -> list[bytes]:
    """Packets that get far into the programs, to be changed at random."""
    pods = (family.pod_one, family.pod_two, family.pod_far, family.pod_third)
    others = (family.nobody, family.gateway, family.world, family.group, family.node_two)
    eth = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
    found = [eth / family.ip(src, dst) / PAYLOAD for src in pods for dst in (*pods, *others)]
    found += [eth / family.ip(family.pod_one, dst) / TCP() for dst in pods]
    outside = underlay.ip(underlay.node_two, underlay.node_one) / UDP(dport=VXLAN_PORT)
    inside = Ether(src=OVERLAY_MAC, dst=GATEWAY_MAC) / family.ip(family.pod_far, family.pod_one)
    found += [eth / outside / VXLAN(vni=vni) / inside / PAYLOAD for vni in (VNI, VNI + 1)]
    if family is IPV4:
        found += [eth / ARP(psrc=family.pod_one, pdst=dst) for dst in (*pods, *others)]
        options = IP(src=family.pod_one, dst=family.pod_far, options=[IPOption_Timestamp()])
        found.append(eth / options / PAYLOAD)
    else:
        found += [
            eth / IPv6(src=family.pod_one, dst=dst, hlim=255) / ICMPv6ND_NS(tgt=dst)
            for dst in (*pods, *others)
        ]
        found.append(eth / IPv6(src=family.pod_one, dst=family.pod_far) / IPv6ExtHdrFragment())
    return [bytes(packet) for packet in found]


def mutate(chance: random.Random, packets: list[bytes]) -> bytes:
    """One of `packets` with a few bytes changed, cut, grown or crossed with another."""
    packet = bytearray(chance.choice(packets))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(packet)) if chance.random() < 0.5 else chance.randrange(12, 54)
        if at < len(packet):
            odd = chance.choice(INTERESTING)
            packet[at] = odd if chance.random() < 0.5 else chance.randrange(256)
    shape = chance.random()
    if shape < 0.10:
        del packet[chance.randrange(15, len(packet)) :]
    elif shape < 0.20:
        packet += chance.randbytes(chance.randrange(LONGEST - len(packet)))
    elif shape < 0.30:
        other = chance.choice(packets)
        at = chance.randrange(15, len(packet))
        packet[at:] = other[at:]
    elif shape < 0.33:
        return chance.randbytes(chance.randrange(15, 120))
    return bytes(packet)


def read_addresses(packet: bytes) -> tuple[str, str] | None:
    """(source, destination) of an IP packet."""
    kind = packet[12:14]
    if kind == ETH_P_IP and len(packet) >= 34:
        return str(ip_address(packet[26:30])), str(ip_address(packet[30:34]))
    if kind == ETH_P_IPV6 and len(packet) >= 54:
        return str(ip_address(packet[22:38])), str(ip_address(packet[38:54]))
    return None


def owner(tables: Tables, where: str) -> str | None:
    """The VTEP of the longest prefix that holds the address."""
    found = [
        (network.prefixlen, vtep)
        for network, vtep in ((ip_network(text), vtep) for text, vtep in tables.remotes.items())
        if ip_address(where) in network
    ]
    return max(found)[1] if found else None


def entering(
    dataplane: Dataplane, known: Tables, family: Family, underlay: Family, packets: list[bytes]
) -> Iterator[tuple[bytes, bytes, str]]:
    """Of random packets like `packets` from the underlay, those that get in: as they came, as they
    are then, and words about them. Each is for a pod or the node itself."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    chance = random.Random(f"{seed} {family.name} {underlay.name}")
    dataplane.fill(known)
    dataplane.answer(Fib())
    here = {family.gateway, underlay.node_one, *(one.seconds[0] for one in FAMILIES)}
    entered = 0
    for _ in range(PACKETS // 10):
        packet = mutate(chance, packets)
        action, after, went = run_fast(dataplane, "from_underlay", packet)
        if action is not Action.REDIRECT:
            continue
        entered += 1
        about = f"SEED={seed}: {went}\n{packet.hex(' ')}"
        _, target = read_addresses(after) or ("", "")
        if went.helper == "redirect_peer":
            assert known.endpoints[target].ifindex == went.ifindex, about
        else:
            assert target in here, about
        yield packet, after, about
    assert entered > 100, f"SEED={seed}: the packets show nothing"


def find_vtep(tables: Tables, where: str) -> str:
    """Of the node that has the address; the address itself if none has."""
    return owner(tables, where) or tables.nodes.get(where) or where


def wrong(
    program: str, tables: Tables, packet: bytes, after: bytes, went: Redirect, vtep: str | None
) -> str | None:
    """What is wrong with redirecting this packet there, if anything is."""
    to_self = Redirect("redirect_peer", VETH_ONE)
    if program == "from_container" and went == to_self and after[:6] == packet[6:12]:
        answered = after[12:14] == ETH_P_ARP or after[54:55] == b"\x88"
        if answered:
            return None if packet[12:14] == after[12:14] else "an answer in another protocol"
    addresses = read_addresses(packet)
    if addresses is None:
        return "redirected, but not IP"
    src, dst = addresses
    if packet[14:] != after[14:]:
        return "changed behind the Ethernet header"
    ep = tables.endpoints.get(dst)
    if program == "from_container":
        source = tables.endpoints.get(src)
        if source is None or source.ifindex != VETH_ONE:
            return "source is not of this pod"
        if packet[6:12] != bytes.fromhex(source.mac.replace(":", "")):
            return "MAC is not of this pod"
    if program == "from_overlay" and owner(tables, src) != IPV4.node_two and src != IPV4.node_two:
        return "inner source is not of the sending node"
    if went.helper == "redirect_peer" or program == "to_overlay":
        return None if ep and ep.ifindex == went.ifindex else "no pod behind that interface"
    if program == "from_container" and went == Redirect("redirect", STACK_IFINDEX, BPF_F_INGRESS):
        return "a pod of this node" if ep else None
    if program != "from_container" or went != Redirect("redirect", VXLAN_IFINDEX):
        return "no business there"
    there = owner(tables, dst) or (dst if dst in tables.vteps else None)
    return None if there and there == vtep else f"sent to {vtep}, destination is at {there}"


def run_fast(dataplane: Dataplane, program: str, packet: bytes) -> tuple[Action, bytes, Redirect]:
    """Like Dataplane.run, without counters; redirect and tunnel may be of an earlier packet."""
    result = dataplane.test_run(program, packet)
    record = dataplane.maps["last_redirect"].lookup(FIRST) or b""
    helper, ifindex, flags, *_ = REDIRECT_RECORD.unpack(record)
    name = "redirect_peer" if helper == 2 else "redirect"
    return Action(result.action), result.packet, Redirect(name, ifindex, flags)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_no_packet_goes_where_the_maps_do_not_say(
    dataplanes: Dataplanes, program: str, family: Family
) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    sys.stdout.write(f"SEED={seed}\n")
    chance = random.Random(f"{seed} {program} {family.name}")
    dataplane = dataplanes[IPV4.name]
    tables = cluster(IPV4)
    dataplane.fill(tables)
    dataplane.arrive_from(IPV4.node_two if program == "from_overlay" else None)
    packets = seeds(family, IPV4)
    seen: Counter[Action] = Counter()
    for _ in range(PACKETS // len(PROGRAMS) // len(FAMILIES)):
        packet = mutate(chance, packets)

        action, after, went = run_fast(dataplane, program, packet)

        seen[action] += 1
        if action is Action.REDIRECT:
            fault = wrong(program, tables, packet, after, went, dataplane.last_tunnel()[0])
            assert fault is None, f"SEED={seed}: {fault}: {went}\n{packet.hex(' ')}"
        else:
            assert after[14:] == packet[14:], f"SEED={seed}: changed\n{packet.hex(' ')}"
    assert len(seen) > 1, f"SEED={seed}: the packets show nothing: {seen}"
