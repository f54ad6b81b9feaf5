# SPDX-License-Identifier: Apache-2.0
"""Random frames: what a pod may send that may do everything in its own namespace, and what a host
on the underlay may. Half of them are then damaged. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from bpf.world import FOREIGN_MAC, GATEWAY_MAC, OVERLAY_MAC, VXLAN_PORT
from fuzz.wire_packets import (
    ETH_P_8021Q,
    ETH_P_ARP,
    ETH_P_IP,
    IP_IN_IP,
    IPIP,
    IPV6_IN_IP,
    PORTS,
    UDP,
    arp,
    carrying,
    damaged,
    ip,
    of_a_node,
    udp,
    vxlan,
)
from fuzz.wire_pools import GROUP_MACS, MACS, OWN_MAC, POOLS, TARGET_MACS, mac


@dataclass(frozen=True)
class Stranger:
    """A host on the underlay: what it may take for its own, and what it tries."""

    sources: tuple[bytes, ...]
    """Its outer addresses, packed, of the underlay's family."""
    macs: tuple[bytes, ...]
    target: bytes
    """The VTEP of the node that it sends to."""
    ways: tuple[str, ...]
    """How its frames come: "vxlan", "ipip" or "direct"; each as often as it is here."""


def of_a_pod(chance: random.Random) -> bytes:
    """What pod one might send."""
    eth = chance.choice(TARGET_MACS) + chance.choice(MACS)
    if chance.random() < 0.03:
        return damaged(chance, eth + ETH_P_ARP + arp(chance))
    pool = POOLS[32 if chance.random() < 0.4 else 128]
    src = chance.choice(pool.own if chance.random() < 0.9 else pool.all)
    packet = ip(chance, src, chance.choice(pool.all))
    return damaged(chance, eth + _perhaps_tagged(chance, packet))


def of_a_stranger(chance: random.Random, stranger: Stranger) -> bytes:
    """What might come in on the uplink: often as from another node, in one of the three ways."""
    inside = mac(GATEWAY_MAC) + mac(OVERLAY_MAC) + of_a_node(chance, chance.choice((32, 128)))
    kind = inside[12:14]
    if chance.random() < 0.5:
        inside = damaged(chance, inside)
    way = chance.choice(stranger.ways)
    if way == "direct":
        packet = inside[12:]
    elif way == "ipip":
        proto = IP_IN_IP if kind == ETH_P_IP else IPV6_IN_IP
        proto = proto if chance.random() < 0.97 else chance.choice(IPIP)
        packet = _outer(chance, stranger, proto, inside[14:])
    else:
        port = VXLAN_PORT if chance.random() < 0.95 else chance.choice(PORTS)
        packet = _outer(chance, stranger, UDP, udp(50000, port, vxlan(chance, inside)))
    eth = _station(chance) + chance.choice(stranger.macs)
    frame = eth + _perhaps_tagged(chance, packet)
    return damaged(chance, frame) if chance.random() < 0.4 else frame


def _outer(chance: random.Random, stranger: Stranger, proto: int, upper: bytes) -> bytes:
    others = POOLS[len(stranger.target) * 8].all
    target = stranger.target if chance.random() < 0.9 else chance.choice(others)
    return carrying(chance, chance.choice(stranger.sources), target, proto, upper)


def _station(chance: random.Random) -> bytes:
    """Mostly this node's."""
    pick = chance.random()
    if pick < 0.92:
        return OWN_MAC
    return chance.choice(GROUP_MACS) if pick < 0.97 else mac(FOREIGN_MAC)


def _perhaps_tagged(chance: random.Random, packet: bytes) -> bytes:
    """EtherType and packet, seldom with a VLAN tag among the bytes."""
    if chance.random() < 0.99:
        return packet
    return ETH_P_8021Q + b"\0" + bytes([chance.randrange(256)]) + packet
