# SPDX-License-Identifier: Apache-2.0
"""Counters and events of drops."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest
from scapy.packet import Raw

from bpf.dataplane import Dataplane
from bpf.outcomes import Action
from bpf.world import FAMILIES, IPV4, VETH_ONE, cluster
from loader import btf
from loader.bpf import RingBuffer
from loader.compile import Objects

pytestmark = pytest.mark.root

ONE_IN_FOUR = 3
EVENT_HEAD = 64
ENVELOPE = struct.Struct("=HHI")  # kind, version, length
DROP, VERSION = 1, 1


@pytest.fixture
def fresh(recorded: Objects) -> Iterator[Dataplane]:
    """Programs with counters and events of their own, that show one drop in four."""
    with Dataplane(recorded, IPV4, event_mask=struct.pack("=I", ONE_IN_FOUR)) as dataplane:
        dataplane.fill(cluster(IPV4))
        yield dataplane


def member(recorded: Objects, event: bytes, name: str) -> bytes:
    types = btf.of_object(recorded.path("to_container"))
    members = types.members(types.find(btf.STRUCT, "drop_event"))
    where = next(member for member, _ in members if member.name == name)
    return event[where.offset : where.offset + where.size]


def test_an_event_tells_of_the_packet(fresh: Dataplane, recorded: Objects) -> None:
    packet = bytes(IPV4.from_pod_one(IPV4.nobody) / Raw(bytes(100)))
    before = time.monotonic_ns()

    fresh.run("from_container", packet)
    (event,) = fresh.events()

    def number(name: str) -> int:
        return int.from_bytes(member(recorded, event, name), "little")

    assert ENVELOPE.unpack_from(event) == (DROP, VERSION, len(event))
    assert before <= number("time_ns") <= time.monotonic_ns()
    assert number("ifindex") == VETH_ONE
    assert number("length") == len(packet)
    assert number("point") == fresh.points["FROM_CONTAINER"]
    assert number("reason") == fresh.reasons["DROP_UNKNOWN_DESTINATION"]
    assert number("head_length") == EVENT_HEAD
    assert member(recorded, event, "head") == packet[:EVENT_HEAD]


def test_the_head_of_a_short_packet_ends_with_it(fresh: Dataplane, recorded: Objects) -> None:
    packet = bytes(IPV4.from_pod_one(IPV4.pod_two))[:20]

    fresh.run("from_container", packet)
    (event,) = fresh.events()

    assert int.from_bytes(member(recorded, event, "head_length"), "little") == len(packet)
    assert member(recorded, event, "head") == packet.ljust(EVENT_HEAD, b"\0")


def test_a_sample_of_the_drops_becomes_events(fresh: Dataplane) -> None:
    program = fresh.programs["from_container"]
    packet = bytes(IPV4.from_pod_one(IPV4.nobody))

    program.test_run(packet, repeat=12)  # all on one CPU: each CPU counts for itself

    with RingBuffer(fresh.maps["events"]) as ring:
        assert len(ring.poll(0)) == 12 / (ONE_IN_FOUR + 1)
    expected = {("FROM_CONTAINER", "UNKNOWN_DESTINATION"): (12, 12 * len(packet))}
    assert fresh.drops() == expected


def test_a_full_ring_loses_events_but_no_counts(fresh: Dataplane, recorded: Objects) -> None:
    ring_bytes = fresh.maps["events"].info.max_entries
    types = btf.of_object(recorded.path("to_container"))
    event_bytes = types.size(types.find(btf.STRUCT, "drop_event"))
    enough = (ONE_IN_FOUR + 1) * 2 * ring_bytes // event_bytes
    packet = bytes(IPV4.from_pod_one(IPV4.nobody))

    result = fresh.programs["from_container"].test_run(packet, repeat=enough)

    assert result.action == Action.SHOT
    assert fresh.drops()["FROM_CONTAINER", "UNKNOWN_DESTINATION"][0] == enough


def test_what_passes_counts_nothing(fresh: Dataplane) -> None:
    for family in FAMILIES:
        fresh.run("from_container", family.from_pod_one(family.pod_far))

    assert fresh.drops() == {}
    assert fresh.events() == []
