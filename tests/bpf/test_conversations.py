# SPDX-License-Identifier: Apache-2.0
"""Flows through Services, packet after packet, over the same tables."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from scapy.packet import Packet

from bpf.outcomes import to_stack
from bpf.service_world import (
    CLIENT,
    PORT,
    REJECT_MARK,
    TARGET,
    VIP,
    End,
    Services,
    answer,
    packet,
    request,
    target,
    translated,
)
from bpf.world import GATEWAY_MAC, OVERLAY_MAC, Family
from pycni.dataplane import flows
from pycni.dataplane.service_maps import FLOWS

pytestmark = pytest.mark.root

DAY = 86_400


def expiry(services: Services) -> set[int]:
    """In how many seconds the entries expire, to the next second; which is what `pycni flows` takes
    for the lifetime of such an entry."""
    found = {round(flow.expires_in) for flow in services.flows().values()}
    assert found == {
        flows.lifetime(FLOWS.key.unpack(key).protocol, FLOWS.value.unpack(value))
        for key, value in services.raw_flows().items()
    }
    return found


def chosen(services: Services) -> set[int]:
    """Backends in the entries."""
    return {flow.backend for flow in services.flows().values()}


def reply(services: Services, packet: Packet) -> None:
    """What comes to pod one from elsewhere."""
    assert services.dataplane.run("to_container", packet).path == "POD"


def test_a_connection_from_its_beginning_to_its_end(services: Services, family: Family) -> None:
    """S-120, S-121"""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end])

    services.send(request(family, "TCP"))
    assert expiry(services) == {60}
    reply(services, answer(family, "TCP", end))
    assert expiry(services) == {8000}
    services.send(request(family, "TCP", flags="A"))
    services.send(request(family, "TCP", flags="FA"))
    assert expiry(services) == {8000}
    reply(services, answer(family, "TCP", end, flags="FA"))
    assert expiry(services) == {30}


@pytest.mark.parametrize("by_client", [True, False], ids=["by the client", "by the endpoint"])
def test_a_reset_shortens_a_flow(services: Services, family: Family, by_client: bool) -> None:
    """S-083"""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end])
    services.send(request(family, "TCP"))
    reply(services, answer(family, "TCP", end))

    if by_client:
        services.send(request(family, "TCP", flags="R"))
    else:
        reply(services, answer(family, "TCP", end, flags="R"))

    assert expiry(services) == {10}


@pytest.mark.parametrize(("protocol", "seconds"), [("UDP", 180), ("SCTP", 3600)])
def test_an_answer_makes_a_flow_last(
    services: Services, family: Family, protocol: str, seconds: int
) -> None:
    """S-120"""
    end = End(3, family.pod_far, target(protocol))
    services.put(VIP[family.name], [end], protocol=protocol)
    services.send(request(family, protocol))

    reply(services, answer(family, protocol, end))

    assert expiry(services) == {seconds}


def test_packets_of_one_direction_keep_both_entries(services: Services, family: Family) -> None:
    """S-121"""
    services.put(VIP[family.name], [End(3, family.pod_far)], protocol="UDP")
    services.send(request(family, "UDP"))
    first = max(flow.expires_in for flow in services.flows().values())
    services.change_flows(expires=services.now() + 5_000_000_000)

    services.send(request(family, "UDP"))

    assert expiry(services) == {round(first)}


def test_a_lost_entry_is_written_again(services: Services, family: Family) -> None:
    """S-121: the kernel evicts entries one by one."""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end], protocol="UDP")
    services.send(request(family, "UDP"))
    both = services.flows()
    services.remove_flow((end.address, end.port, family.pod_one, CLIENT))
    services.change_flows(expires=services.now() + 5_000_000_000)

    services.send(request(family, "UDP"))

    assert services.flows().keys() == both.keys()
    assert {one.to for one in services.flows().values()} == {one.to for one in both.values()}


def test_an_entry_is_not_written_for_each_packet(services: Services, family: Family) -> None:
    """S-119: CPUs would fight for it."""
    services.put(VIP[family.name], [End(3, family.pod_far)], protocol="UDP")
    services.send(request(family, "UDP"))
    before = services.raw_flows()

    services.send(request(family, "UDP"))

    assert services.raw_flows() == before


def test_all_packets_of_a_flow_go_to_one_endpoint(
    services: Services, family: Family, protocol: str
) -> None:
    """S-074"""
    ends = [End(at, family.pod_far, target(protocol)) for at in (1, 2)]
    ends += [End(at, family.pod_third, target(protocol)) for at in (3, 4)]
    services.put(VIP[family.name], ends, protocol=protocol)
    services.send(request(family, protocol))
    (first,) = chosen(services)
    more = {"flags": "A"} if protocol == "TCP" else {}
    services.put(VIP[family.name], [end for end in ends if end.at != first], protocol=protocol)

    for _ in range(20):
        services.send(request(family, protocol, **more))

    assert chosen(services) == {first}


def test_a_datagram_goes_elsewhere_when_its_endpoint_is_gone(
    services: Services, family: Family
) -> None:
    """S-076, S-081: with the very next one."""
    gone, other = End(3, family.pod_far), End(4, family.pod_third)
    services.put(VIP[family.name], [gone], protocol="UDP")
    services.send(request(family, "UDP"))
    services.put(VIP[family.name], [other], protocol="UDP")
    services.lose(gone)

    outcome = services.send(request(family, "UDP"))

    expected = translated(family, "UDP", other)
    assert outcome.packet[14:] == bytes(expected)[14:]
    assert chosen(services) == {other.at}
    assert len(services.flows()) == 2


def test_a_datagram_is_rejected_when_the_last_endpoint_is_gone(
    services: Services, family: Family
) -> None:
    """S-076, S-077: and arrives again when there is one."""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end], protocol="UDP")
    services.send(request(family, "UDP"))
    services.put(VIP[family.name], [], protocol="UDP")
    services.lose(end)

    rejected = services.send(request(family, "UDP"))
    services.put(VIP[family.name], [replace(end, generation=2)], protocol="UDP")
    arrived = services.send(request(family, "UDP"))

    assert rejected.mark == REJECT_MARK
    assert arrived.packet[14:] == bytes(translated(family, "UDP", end))[14:]


def test_a_connection_to_an_endpoint_that_is_gone_is_rejected(
    services: Services, family: Family
) -> None:
    """S-080, S-059: with the address that the client used."""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end])
    services.send(request(family, "TCP"))
    reply(services, answer(family, "TCP", end))
    services.put(VIP[family.name], [End(4, family.pod_third)])
    services.lose(end)
    sent = request(family, "TCP", flags="A")

    outcome = services.send(sent)

    wanted = to_stack(sent, mark=REJECT_MARK)
    assert outcome == replace(wanted, drops={"BACKEND_GONE": 1}, path=None)


def test_an_endpoint_that_ends_keeps_its_connections(services: Services, family: Family) -> None:
    """S-074, S-075"""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end])
    services.send(request(family, "TCP"))
    reply(services, answer(family, "TCP", end))
    services.put(VIP[family.name], [End(4, family.pod_third)])
    services.put_backend(end, flags=0)

    outcome = services.send(request(family, "TCP", flags="A"))

    assert outcome.packet[14:] == bytes(translated(family, "TCP", end, flags="A"))[14:]


def test_a_connection_that_nobody_answered_leaves_an_endpoint_that_ends(
    services: Services, family: Family
) -> None:
    """S-082"""
    end, other = End(3, family.pod_far), End(4, family.pod_third)
    services.put(VIP[family.name], [end])
    services.send(request(family, "TCP"))
    services.put(VIP[family.name], [other])
    services.put_backend(end, flags=0)

    services.send(request(family, "TCP"))

    assert chosen(services) == {other.at}


@pytest.mark.parametrize(
    ("flags", "keeps"), [(1, True), (1 | 2, True), (1 | 2 | 4 | 8, False), (1 | 16, False)],
    ids=["opening", "established", "closed", "reset"],
)  # fmt: skip
def test_a_new_connection_with_the_same_ports(
    services: Services, family: Family, flags: int, keeps: bool
) -> None:
    """S-082"""
    end, other = End(3, family.pod_far), End(4, family.pod_third)
    services.put(VIP[family.name], [end])
    services.send(request(family, "TCP"))
    services.put(VIP[family.name], [other])
    services.change_flows(flags=flags)

    services.send(request(family, "TCP"))

    assert chosen(services) == ({end.at} if keeps else {other.at})


def test_what_expired_is_no_flow(services: Services, family: Family, protocol: str) -> None:
    """S-119"""
    end = End(3, family.pod_far, target(protocol))
    other = replace(end, at=4, address=family.pod_third)
    services.put(VIP[family.name], [end], protocol=protocol)
    services.send(request(family, protocol))
    services.put(VIP[family.name], [other], protocol=protocol)
    services.change_flows(expires=1)

    services.send(request(family, protocol))

    assert chosen(services) == {other.at}


def test_an_index_that_another_endpoint_got_is_another(services: Services, family: Family) -> None:
    """S-088, S-164"""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end], protocol="UDP")
    services.send(request(family, "UDP"))
    again = End(3, family.pod_third, generation=2)
    services.put(VIP[family.name], [again], protocol="UDP")

    outcome = services.send(request(family, "UDP"))

    assert outcome.packet[14:] == bytes(translated(family, "UDP", again))[14:]


def test_packets_outside_of_the_window_are_translated(services: Services, family: Family) -> None:
    """S-084"""
    end = End(3, family.pod_far)
    services.put(VIP[family.name], [end])
    services.send(request(family, "TCP", seq=1000))

    outcome = services.send(request(family, "TCP", flags="A", seq=4_000_000_000, ack=77))

    wanted = translated(family, "TCP", end, flags="A", seq=4_000_000_000, ack=77)
    assert outcome.packet[14:] == bytes(wanted)[14:]


def test_two_processors_begin_one_flow(services: Services, family: Family) -> None:
    """S-122, S-176: one pair of entries, and all packets to one endpoint."""
    ends = [End(at, family.pod_far, TARGET + at) for at in range(1, 40)]
    services.put(VIP[family.name], ends, protocol="UDP")
    program = services.dataplane.programs["from_container"]
    for number in range(200):
        sent = bytes(
            packet(family, "UDP", (family.pod_one, CLIENT + number, VIP[family.name], PORT))
        )
        results: list[bytes] = []
        start = threading.Barrier(2)

        def run(
            raw: bytes = sent, into: list[bytes] = results, at: threading.Barrier = start
        ) -> None:
            at.wait()
            into.append(program.test_run(raw).packet)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(results)) == 1

    assert len(services.flows()) == 400


def test_the_macs_are_those_of_the_way(services: Services, family: Family) -> None:
    services.put(VIP[family.name], [End(3, family.pod_far)])

    outcome = services.send(request(family, "TCP"))

    macs = (bytes.fromhex(one.replace(":", "")) for one in (GATEWAY_MAC, OVERLAY_MAC))
    assert outcome.packet[:12] == b"".join(macs)
