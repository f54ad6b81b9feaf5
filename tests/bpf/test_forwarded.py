# SPDX-License-Identifier: Apache-2.0
"""Counters of packets that go on. Which path a packet takes is in every table of cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bpf.dataplane import Dataplane
from bpf.outcomes import dropped, left_to_others
from bpf.world import FAMILIES, FOREIGN_MAC, GATEWAY_MAC, IPV4, POD_ONE_MAC, Family, cluster
from loader.compile import Objects

pytestmark = pytest.mark.root


@pytest.fixture
def fresh(recorded: Objects) -> Iterator[Dataplane]:
    """Programs with counters of their own."""
    with Dataplane(recorded, IPV4) as dataplane:
        dataplane.fill(cluster(IPV4))
        yield dataplane


def test_packets_and_bytes_add_up(fresh: Dataplane) -> None:
    lengths = []
    for family in FAMILIES:
        packet = bytes(family.from_pod_one(family.pod_far))
        fresh.run("from_container", packet)
        lengths.append(len(packet))

    fresh.run("from_container", IPV4.from_pod_one(IPV4.gateway))

    assert fresh.forwarded() == {
        ("FROM_CONTAINER", "DEVICE"): (len(FAMILIES), sum(lengths)),
        ("FROM_CONTAINER", "STACK"): (1, lengths[0]),
    }


def test_a_packet_of_many_segments_counts_as_one(fresh: Dataplane) -> None:
    eth = Ether(src=POD_ONE_MAC, dst=GATEWAY_MAC)
    bulk = bytes(eth / IPV4.ip(IPV4.pod_one, IPV4.pod_far) / TCP() / Raw(bytes(3000)))

    fresh.run("from_container", bulk, gso_size=1000)

    assert fresh.forwarded() == {("FROM_CONTAINER", "DEVICE"): (1, len(bulk))}


def test_what_is_dropped_or_not_ours_is_not_counted(fresh: Dataplane) -> None:
    nobody = IPV4.from_pod_one(IPV4.nobody)
    plain = Ether(src=FOREIGN_MAC, dst=POD_ONE_MAC) / IPV4.ip(IPV4.world, IPV4.node_one) / UDP()

    assert fresh.run("from_container", nobody) == dropped("UNKNOWN_DESTINATION", nobody)
    assert fresh.run("from_underlay", plain) == left_to_others(plain)
    assert fresh.forwarded() == {}


def test_without_a_vxlan_device_nothing_is_sent_to_it(recorded: Objects, family: Family) -> None:
    with Dataplane(recorded, IPV4, vxlan_ifindex=bytes(4)) as dataplane:
        dataplane.fill(cluster(IPV4))
        packet = family.from_pod_one(family.pod_far)

        for program in ("from_container", "to_overlay"):
            outcome = dataplane.run(program, packet)

            assert outcome == dropped("UNKNOWN_DESTINATION", packet)
