# SPDX-License-Identifier: Apache-2.0
"""to_overlay: what the host's stack sends to pods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, fragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.outcomes import Outcome, dropped, out_of_veth, passed, with_macs
from bpf.world import (
    BROADCAST_MAC,
    EMPTY,
    GATEWAY_MAC,
    IPV4,
    OVERLAY_MAC,
    OVERLAY_MTU,
    PAYLOAD,
    VETH_ONE,
    VETH_TWO,
    Family,
)

pytestmark = pytest.mark.root


def from_host(family: Family, dst: str, *, src: str = "", eth_dst: str = GATEWAY_MAC) -> Packet:
    eth = Ether(src=GATEWAY_MAC, dst=eth_dst)
    return eth / family.ip(src or family.gateway, dst) / PAYLOAD


def encapsulated(vtep: str, packet: Packet) -> Outcome:
    return replace(
        passed(with_macs(packet, src=OVERLAY_MAC, dst=GATEWAY_MAC), "DEVICE"), tunnel=vtep
    )


def rows(family: Family, underlay: Family) -> Iterator[Case]:
    packet = from_host(family, family.pod_one)
    yield Case("pod of this node", packet, out_of_veth(VETH_ONE, packet))
    packet = from_host(family, family.pod_two, src=family.world)
    yield Case("the world to a pod of this node", packet, out_of_veth(VETH_TWO, packet))
    packet = from_host(family, family.pod_far)
    yield Case("pod of node two", packet, encapsulated(underlay.node_two, packet))
    packet = from_host(family, family.pod_third)
    yield Case("pod of node three", packet, encapsulated(underlay.node_three, packet))
    packet = from_host(family, family.far_gateway)
    yield Case("gateway of node two", packet, encapsulated(underlay.node_two, packet))
    packet = from_host(family, family.pod_far) / Raw(bytes(OVERLAY_MTU))
    yield Case("the device has its MTU", packet, encapsulated(underlay.node_two, packet))
    packet = from_host(family, family.nobody)
    yield Case("cluster address of nobody", packet, dropped("UNKNOWN_DESTINATION", packet))
    packet = from_host(family, family.world)
    yield Case("the world", packet, dropped("UNKNOWN_DESTINATION", packet))
    packet = from_host(family, family.pod_far)
    yield Case("nobody is known", packet, dropped("UNKNOWN_DESTINATION", packet), EMPTY)
    packet = from_host(family, family.group)
    yield Case("multicast", packet, dropped("MULTICAST", packet))
    packet = from_host(family, family.pod_far, eth_dst=BROADCAST_MAC)
    yield Case("unicast in a broadcast frame", packet, dropped("MULTICAST", packet))
    packet = Ether(src=GATEWAY_MAC, dst=BROADCAST_MAC) / ARP(pdst=IPV4.pod_far)
    yield Case("ARP of the host", packet, dropped("UNKNOWN_L3", packet))
    if family is IPV4:
        ip4 = IP(src=family.gateway, dst=family.pod_far)
        whole = Ether(src=GATEWAY_MAC, dst=GATEWAY_MAC) / ip4 / Raw(bytes(100))
        for number, part in enumerate(fragment(whole, fragsize=48)):
            yield Case(f"fragment {number}", part, encapsulated(underlay.node_two, part))


@in_all_families(rows)
def test_the_host_reaches_pods(dataplanes: Dataplanes, underlay: Family, case: Case) -> None:
    check(dataplanes, "to_overlay", underlay, case)


def test_a_packet_with_its_key_set_is_left_alone(dataplanes: Dataplanes, family: Family) -> None:
    for dataplane in dataplanes.values():
        dataplane.arrive_from(dataplane.underlay.node_one)
        packet = from_host(family, family.nobody)

        outcome = dataplane.run("to_overlay", packet)

        assert outcome == passed(packet, None)
