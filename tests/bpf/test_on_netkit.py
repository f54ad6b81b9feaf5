# SPDX-License-Identifier: Apache-2.0
"""On a kernel with netkit: what from_container does while a pod sends, which is no tc ingress.

All tables of from_container hold there, but that no packet can enter a pod by its peer. And what
comes in as ever is treated as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from scapy.packet import Packet

from bpf import (
    test_forged,
    test_from_container,
    test_from_overlay,
    test_martians,
    test_messages,
    test_path_mtu,
    test_to_container,
)
from bpf.cases import Case, Dataplanes, check, in_all_families
from bpf.dataplane import Dataplane
from bpf.outcomes import Outcome, Redirect, answered, dropped, into_pod, passed
from bpf.test_neighbour import ANSWERED
from bpf.world import (
    FAMILIES,
    IPV4,
    IPV6,
    MASQUERADE_MARK,
    VETH_ONE,
    VETH_TWO,
    VXLAN_IFINDEX,
    Family,
    cluster,
)
from loader.compile import Objects

pytestmark = pytest.mark.root

DELIVERED_MARK = 0x70796370
"""bpf/lib/deliver.h"""

ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD

Rows = Callable[[Family, Family], Iterator[Case]]


@pytest.fixture(scope="module")
def netkits(recorded: Objects) -> Iterator[Dataplanes]:
    """The programs of a node whose kernel has netkit, by the name of the underlay's family."""
    with ExitStack() as stack:
        yield {
            underlay.name: stack.enter_context(Dataplane(recorded, underlay, netkit=b"\1"))
            for underlay in FAMILIES
        }


@pytest.fixture
def netkit(netkits: Dataplanes) -> Dataplane:
    dataplane = netkits[IPV4.name]
    dataplane.fill(cluster(IPV4))
    dataplane.arrive_from(None)
    return dataplane


def by_the_host_end(outcome: Outcome) -> Outcome:
    """The same, where a packet cannot take the way of the peer."""
    if outcome.redirect is None or outcome.redirect.helper != "redirect_peer":
        return outcome
    there = Redirect("redirect", outcome.redirect.ifindex)
    return replace(outcome, redirect=there, mark=DELIVERED_MARK)


def sent_on_netkit(family: Family, underlay: Family) -> Iterator[Case]:
    tables: tuple[Rows, ...] = (
        test_from_container.destinations,
        test_from_container.to_shaped_pods,
        test_from_container.of_queued_pods,
        test_from_container.refused,
        test_from_container.only_ipv4,
        test_from_container.only_ipv6,
        test_from_container.marks,
        test_path_mtu.to_pods,
        test_path_mtu.to_the_node,
        test_path_mtu.bulk_to_the_node,
        test_forged.forged,
        test_forged.innocent,
        test_messages.odd_shapes,
        test_martians.destinations,
    )
    for rows in tables:
        for case in rows(family, underlay):
            description = f"{rows.__name__}: {case.description}"
            yield replace(case, description=description, outcome=by_the_host_end(case.outcome))


def from_other_nodes(family: Family, underlay: Family) -> Iterator[Case]:
    for case in test_from_overlay.accepted(family, underlay):
        yield replace(case, came_in_on=VXLAN_IFINDEX)


@in_all_families(sent_on_netkit)
def test_a_pod_on_netkit_reaches_what_others_reach(
    netkits: Dataplanes, underlay: Family, case: Case
) -> None:
    check(netkits, "from_container", underlay, case)


@pytest.mark.parametrize(("question", "answer"), ANSWERED.values(), ids=ANSWERED)
def test_an_answer_goes_back_by_the_host_end(
    netkit: Dataplane, question: Packet, answer: Packet
) -> None:
    outcome = netkit.run("from_container", question)

    assert outcome == by_the_host_end(answered(VETH_ONE, answer))


@pytest.mark.parametrize("claimed", [ETH_P_ARP, ETH_P_IP, ETH_P_IPV6], ids=hex)
def test_what_a_pod_calls_its_packet_means_nothing(netkit: Dataplane, claimed: int) -> None:
    """A packet socket sets skb->protocol; the bytes are what others will read."""
    spoofed = bytes(IPV6.from_pod_one(IPV6.pod_two, src=IPV6.pod_far))
    question, answer = (bytes(one) for one in ANSWERED["ARP for the gateway"])

    refused = netkit.run_as("from_container", spoofed.ljust(60, b"\0"), claimed)
    told = netkit.run_as("from_container", question.ljust(60, b"\0"), claimed)

    assert refused == dropped("SPOOFED_SOURCE", spoofed.ljust(60, b"\0"))
    assert told == by_the_host_end(answered(VETH_ONE, answer.ljust(60, b"\0")))


def test_a_pod_on_veth_is_past_that(netkit: Dataplane, family: Family) -> None:
    packet = family.from_pod_one(family.pod_two)

    outcome = netkit.run("from_container", packet, came_in_on=VETH_ONE)

    assert outcome == into_pod(VETH_TWO, test_from_container.delivered(packet))


@in_all_families(from_other_nodes)
def test_what_other_nodes_send_enters_a_pod_by_its_peer(
    netkits: Dataplanes, underlay: Family, case: Case
) -> None:
    check(netkits, "from_overlay", underlay, case)


@in_all_families(test_to_container.rows)
def test_what_the_host_sends_is_checked_as_ever(
    netkits: Dataplanes, underlay: Family, case: Case
) -> None:
    check(netkits, "to_container", underlay, case)


@pytest.mark.parametrize(("_question", "answer"), ANSWERED.values(), ids=ANSWERED)
def test_an_answer_passes_to_its_pod(netkit: Dataplane, _question: Packet, answer: Packet) -> None:
    assert netkit.run("to_container", answer, mark=DELIVERED_MARK) == passed(
        answer, None, mark=DELIVERED_MARK
    )


def test_only_the_whole_mark_passes(
    netkit: Dataplane, dataplane: Dataplane, family: Family
) -> None:
    packet = test_to_container.from_host(family, family.pod_two)

    other = netkit.run("to_container", packet, mark=DELIVERED_MARK | MASQUERADE_MARK | 1)
    without = dataplane.run("to_container", packet, mark=DELIVERED_MARK)

    assert other == replace(dropped("WRONG_ENDPOINT", packet), mark=other.mark)
    assert without == replace(dropped("WRONG_ENDPOINT", packet), mark=DELIVERED_MARK)
