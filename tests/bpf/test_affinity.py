# SPDX-License-Identifier: Apache-2.0
"""Session affinity: new flows of one client go to one endpoint, until it goes or time is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bpf.service_world import ALL, CLIENT, PORT, VIP, End, Services, packet
from bpf.world import Family

pytestmark = pytest.mark.root

SECONDS = 100


@pytest.fixture
def ends(family: Family) -> list[End]:
    return [End(at, family.pod_far, 8000 + at) for at in range(1, 21)]


def connect(services: Services, family: Family, number: int, *, port: int = PORT) -> int:
    """A new flow of pod one; the endpoint that it got."""
    ends = (family.pod_one, CLIENT + number, VIP[family.name], port)
    services.send(packet(family, "TCP", ends, flags="S"))
    return services.flows()[ends].backend


def test_a_client_keeps_its_endpoint(services: Services, family: Family, ends: list[End]) -> None:
    """S-048"""
    services.put(VIP[family.name], ends, affinity=SECONDS)

    assert len({connect(services, family, number) for number in range(20)}) == 1


def test_each_new_flow_begins_the_time_anew(
    services: Services, family: Family, ends: list[End]
) -> None:
    """S-048: it is that of the client's last new flow."""
    services.put(VIP[family.name], ends, affinity=SECONDS)
    connect(services, family, 0)
    services.change_affinity(expires=services.now() + 5_000_000_000)

    connect(services, family, 1)

    ((seconds, _),) = services.affinities().values()
    assert SECONDS - 2 < seconds <= SECONDS


def test_after_the_time_the_choice_is_random_again(
    services: Services, family: Family, ends: list[End]
) -> None:
    """S-050"""
    services.put(VIP[family.name], ends, affinity=SECONDS)
    found = set()

    for number in range(20):
        found.add(connect(services, family, number))
        services.change_affinity(expires=1)

    assert len(found) > 1


def test_ports_of_a_service_do_not_share_it(
    services: Services, family: Family, ends: list[End]
) -> None:
    """S-049"""
    services.put(VIP[family.name], ends, affinity=SECONDS)
    others = [replace(end, at=end.at + 20) for end in ends]
    services.put(VIP[family.name], others, affinity=SECONDS, service=2, number=PORT + 1)

    connect(services, family, 0)
    connect(services, family, 0, port=PORT + 1)

    assert len(services.affinities()) == 2


def test_an_endpoint_that_is_not_chosen_any_more_loses_its_clients(
    services: Services, family: Family, ends: list[End]
) -> None:
    """S-051"""
    services.put(VIP[family.name], ends, affinity=SECONDS)
    first = connect(services, family, 0)
    left = [end for end in ends if end.at != first]
    services.put(VIP[family.name], left, affinity=SECONDS)
    services.put_backend(ends[first - 1], flags=0)

    assert connect(services, family, 1) != first


def test_an_endpoint_that_is_gone_loses_its_clients(
    services: Services, family: Family, ends: list[End]
) -> None:
    """S-051, S-088"""
    services.put(VIP[family.name], ends, affinity=SECONDS)
    first = connect(services, family, 0)
    services.put_backend(replace(ends[first - 1], generation=2), flags=ALL)
    left = [end for end in ends if end.at != first]
    services.put(VIP[family.name], left, affinity=SECONDS)

    assert connect(services, family, 1) != first


def test_with_local_it_is_among_local_endpoints(
    services: Services, family: Family, ends: list[End]
) -> None:
    """S-052"""
    services.put(VIP[family.name], ends, affinity=SECONDS)
    first = connect(services, family, 0)
    here = [replace(end, local=end.at != first) for end in ends]
    services.put(VIP[family.name], here, affinity=SECONDS, local=True)

    second = connect(services, family, 1)

    assert second != first
    assert connect(services, family, 2) == second


def test_without_it_nothing_is_remembered(
    services: Services, family: Family, ends: list[End]
) -> None:
    """S-053: and flows that are there go on."""
    services.put(VIP[family.name], ends, affinity=SECONDS)
    first = connect(services, family, 0)
    services.put(VIP[family.name], ends)

    found = {connect(services, family, number) for number in range(1, 20)}

    assert len(found) > 1
    assert services.flows()[family.pod_one, CLIENT, VIP[family.name], PORT].backend == first
