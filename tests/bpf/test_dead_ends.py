# SPDX-License-Identifier: Apache-2.0
"""from_container: packets to cluster addresses of nobody, where the stack shall answer them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from bpf.dataplane import Dataplane
from bpf.outcomes import Outcome, dropped, to_stack
from bpf.world import IPV4, Family, cluster

pytestmark = pytest.mark.root

MARK = 0x790021


@pytest.fixture
def answering(make_dataplane: Callable[..., Dataplane]) -> Dataplane:
    dataplane = make_dataplane(IPV4, dead_end_mark=struct.pack("=I", MARK))
    dataplane.fill(cluster(IPV4))
    return dataplane


@pytest.mark.parametrize("flag", ["", "queued", "shaped", "masquerade"])
def test_the_stack_answers_and_the_drop_is_counted(
    answering: Dataplane, family: Family, flag: str
) -> None:
    packet = family.from_pod_one(family.nobody)
    answering.fill(cluster(IPV4, **({flag: True} if flag else {})))

    outcome = answering.run("from_container", packet)

    assert outcome == refused(to_stack(packet, mark=MARK))


def refused(outcome: Outcome) -> Outcome:
    """The same, counted as a drop and on no path."""
    return replace(outcome, drops={"UNKNOWN_DESTINATION": 1}, path=None)


def test_nothing_to_a_loopback_address_gets_into_the_stack(
    answering: Dataplane, family: Family
) -> None:
    packet = family.from_pod_one(family.loopback)

    outcome = answering.run("from_container", packet)

    assert outcome == dropped("UNKNOWN_DESTINATION", packet)


def test_what_is_spoofed_is_not_answered(answering: Dataplane, family: Family) -> None:
    packet = family.from_pod_one(family.nobody, src=family.pod_two)

    assert answering.run("from_container", packet) == dropped("SPOOFED_SOURCE", packet)
