# SPDX-License-Identifier: Apache-2.0
"""to_container: what the host's stack may send to the pod behind a veth."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, IPOption_Timestamp
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.outcomes import dropped, passed, with_macs
from bpf.world import (
    BROADCAST_MAC,
    EMPTY,
    FOREIGN_MAC,
    GATEWAY_MAC,
    IPV4,
    PAYLOAD,
    POD_ONE_MAC,
    Family,
)

pytestmark = pytest.mark.root


def from_host(family: Family, dst: str, *, src: str = "", eth_dst: str = GATEWAY_MAC) -> Packet:
    eth = Ether(src=FOREIGN_MAC, dst=eth_dst)
    return eth / family.ip(src or family.gateway, dst) / PAYLOAD


def rows(family: Family, _underlay: Family) -> Iterator[Case]:
    packet = from_host(family, family.pod_one)
    delivered = with_macs(packet, src=GATEWAY_MAC, dst=POD_ONE_MAC)
    yield Case("the gateway to the pod", packet, passed(delivered, "POD"))
    packet = from_host(family, family.pod_one, src=family.world)
    delivered = with_macs(packet, src=GATEWAY_MAC, dst=POD_ONE_MAC)
    yield Case("the world to the pod", packet, passed(delivered, "POD"))
    packet = from_host(family, family.pod_two)
    yield Case("pod behind another veth", packet, dropped("WRONG_ENDPOINT", packet))
    packet = from_host(family, family.pod_far)
    yield Case("pod of another node", packet, dropped("WRONG_ENDPOINT", packet))
    packet = from_host(family, family.pod_one)
    yield Case("pod that is gone", packet, dropped("WRONG_ENDPOINT", packet), EMPTY)
    packet = from_host(family, family.group)
    yield Case("multicast", packet, dropped("MULTICAST", packet))
    packet = from_host(family, family.pod_one, eth_dst=BROADCAST_MAC)
    yield Case("unicast in a broadcast frame", packet, dropped("MULTICAST", packet))
    packet = Ether(src=GATEWAY_MAC, dst=BROADCAST_MAC) / ARP(pdst=IPV4.pod_one)
    yield Case("ARP of the host", packet, dropped("UNKNOWN_L3", packet))
    if family is IPV4:
        ip4 = IP(src=family.gateway, dst=family.pod_one, options=[IPOption_Timestamp()])
        packet = Ether(src=FOREIGN_MAC, dst=GATEWAY_MAC) / ip4 / PAYLOAD
        delivered = with_macs(packet, src=GATEWAY_MAC, dst=POD_ONE_MAC)
        yield Case("options", packet, passed(delivered, "POD"))
        packet = Ether(src=FOREIGN_MAC, dst=GATEWAY_MAC) / IP(dst=family.pod_one, ihl=3) / PAYLOAD
        yield Case("header length below 20", packet, dropped("BAD_HEADER", packet))


@in_all_families(rows)
def test_only_its_own_packets_reach_a_pod(
    dataplanes: Dataplanes, underlay: Family, case: Case
) -> None:
    check(dataplanes, "to_container", underlay, case)
