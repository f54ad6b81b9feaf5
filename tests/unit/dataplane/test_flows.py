# SPDX-License-Identifier: Apache-2.0
"""Connections in the map `flows`: which there are, and how far each is."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pycni.dataplane.abi import FlowFlag
from pycni.dataplane.flows import Connection
from pycni.dataplane.service_maps import Backend
from unit.dataplane.flow_entries import END, NOW, POD, VIP, Entries, key

NONE, ANSWERED, RESET = FlowFlag(0), FlowFlag.ANSWERED, FlowFlag.RESET
REQUEST_FIN, ANSWER_FIN = FlowFlag.REQUEST_FIN, FlowFlag.ANSWER_FIN


def one_of(protocol: str, flags: FlowFlag, seconds: int = 1000) -> Connection:
    entries = Entries()
    entries.put(key(POD, 40000, VIP, 80, protocol), key(POD, 40000, END, 8080, protocol), flags,
                seconds=seconds)  # fmt: skip
    (found,) = entries.opened().connections(NOW)
    return found


@pytest.mark.parametrize(
    ("protocol", "flags", "state"),
    [
        ("TCP", NONE, "opening"),
        ("TCP", ANSWERED, "open"),
        ("TCP", ANSWERED | REQUEST_FIN, "closing"),
        ("TCP", ANSWERED | ANSWER_FIN, "closing"),
        ("TCP", ANSWERED | REQUEST_FIN | ANSWER_FIN, "closed"),
        ("TCP", ANSWERED | RESET | REQUEST_FIN, "reset"),
        ("UDP", NONE, "unanswered"),
        ("UDP", ANSWERED, "answered"),
        ("SCTP", ANSWERED, "answered"),
    ],
)
def test_the_state_is_what_was_seen(protocol: str, flags: FlowFlag, state: str) -> None:
    assert one_of(protocol, flags).state == state


def test_a_connection_is_told_once_and_as_its_client_sees_it() -> None:
    found = one_of("TCP", ANSWERED)

    assert (str(found.packet.src), str(found.packet.dst)) == (POD, VIP)
    assert (str(found.flow.to.dst), found.flow.to.dport) == (END, 8080)


def test_idle_and_remaining_seconds_are_those_of_its_lifetime() -> None:
    found = one_of("UDP", ANSWERED, seconds=170)

    assert (found.idle(NOW), found.remaining(NOW)) == (10, 170)
    assert found.idle(NOW + 1_500_000_000) == 11


def test_what_has_expired_is_no_connection() -> None:
    entries = Entries()
    entries.put(key(POD, 40000, VIP, 80), key(POD, 40000, END, 8080), seconds=0)

    assert list(entries.opened().connections(NOW)) == []


@pytest.mark.parametrize(("generation", "state"), [(1, "open"), (2, "stale"), (None, "stale")])
def test_a_connection_to_an_endpoint_that_is_gone_is_stale(
    generation: int | None, state: str
) -> None:
    entries = Entries()
    entries.put(key(POD, 40000, VIP, 80), key(POD, 40000, END, 8080), ANSWERED, backend=7)
    if generation is not None:
        entries.backends[7] = Backend(ip_address(END), 8080, generation=generation)

    assert [one.state for one in entries.opened().connections(NOW)] == [state]


def test_changes_are_what_began_and_what_has_another_state() -> None:
    entries, seen = Entries(), dict[bytes, bytes]()
    first = key(POD, 40000, VIP, 80), key(POD, 40000, END, 8080)
    second = key(POD, 40001, VIP, 80), key(POD, 40001, END, 8080)

    def changes() -> list[tuple[int, str]]:
        return [(one.packet.sport, one.state) for one in entries.opened().changes(seen, NOW)]

    entries.put(*first)
    assert changes() == [(40000, "opening")]
    assert changes() == []
    entries.put(*first, ANSWERED)
    entries.put(*second)
    assert changes() == [(40000, "open"), (40001, "opening")]
    entries.held.clear()
    assert changes() == []
    assert seen == {}


def test_changes_are_endpoints_that_go_and_others_in_their_place() -> None:
    entries, seen = Entries(), dict[bytes, bytes]()
    ends = key(POD, 40000, VIP, 80), key(POD, 40000, END, 8080)

    def changes() -> list[str]:
        return [one.state for one in entries.opened().changes(seen, NOW)]

    entries.backends[7] = Backend(ip_address(END), 8080, generation=1)
    entries.put(*ends, ANSWERED, backend=7)
    assert changes() == ["open"]
    del entries.backends[7]
    assert changes() == ["stale"]
    assert changes() == []
    entries.backends[8] = Backend(ip_address(END), 8080, generation=1)
    entries.put(*ends, ANSWERED, backend=8)
    assert changes() == ["open"]
