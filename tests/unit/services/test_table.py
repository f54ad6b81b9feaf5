# SPDX-License-Identifier: Apache-2.0
"""What is written to the maps of Services: every step of it, and what a packet meets in between."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.dataplane.service_maps import FrontendKey
from pycni.services.endpoints import PortKey
from pycni.services.table import MARKER, Changes, Room, ServiceTable
from pycni.services.wanted import Use, WantedPort
from unit.services.maps_written import Maps

WEB, DNS = PortKey("shop/web", "http", "TCP", 4), PortKey("kube-system/dns", "dns", "UDP", 4)
WEB_IP, DNS_IP = ip_address("10.96.0.10"), ip_address("10.96.0.53")
WEB_FRONT, DNS_FRONT = FrontendKey(WEB_IP, 80, 6), FrontendKey(DNS_IP, 53, 17)
ONE, TWO, THREE = ((ip_address(f"10.244.1.{number}"), 8080) for number in (1, 2, 3))
ROOM = Room(services=64, slots=64, backends=64)
CHOSEN = Use(all=True)


def port(*ends, front: FrontendKey = WEB_FRONT, affinity: int = 0, **uses) -> WantedPort:
    return WantedPort({front: False}, dict.fromkeys(ends, CHOSEN) | uses, affinity)


@pytest.fixture
def maps() -> Maps:
    return Maps()


@pytest.fixture
def table(maps: Maps) -> ServiceTable:
    return ServiceTable(maps.have(), ROOM)


def test_a_service_port_is_written(maps: Maps, table: ServiceTable) -> None:
    maps.write(table.plan({WEB: port(ONE, TWO, affinity=60)}))

    assert maps.chosen(WEB_FRONT) == {ONE, TWO}
    assert maps.services[WEB_FRONT].affinity == 60
    assert maps.services[FrontendKey(WEB_IP)] == MARKER


def test_an_address_is_marked_after_its_ports_are_there(table: ServiceTable) -> None:
    """S-162: a port that is not there yet would be rejected."""
    made = table.plan({WEB: port(ONE), DNS: port(TWO, front=DNS_FRONT)})

    assert [bool(key.port) for key in made.services] == [True, True, False, False]


def test_an_address_is_unmarked_before_its_ports_go(maps: Maps, table: ServiceTable) -> None:
    maps.write(table.plan({WEB: port(ONE)}))

    made = table.plan({WEB: None})

    assert list(made.removed) == [FrontendKey(WEB_IP), WEB_FRONT]


def test_an_address_with_another_port_stays_marked(maps: Maps, table: ServiceTable) -> None:
    other = PortKey("shop/web", "https", "TCP", 4)
    https = FrontendKey(WEB_IP, 443, 6)
    maps.write(table.plan({WEB: port(ONE), other: port(ONE, front=https)}))

    maps.write(table.plan({WEB: None}))

    assert maps.services.keys() == {FrontendKey(WEB_IP), https}


def test_a_service_port_without_endpoints_is_there(maps: Maps, table: ServiceTable) -> None:
    """S-055"""
    maps.write(table.plan({WEB: port()}))

    assert (maps.services[WEB_FRONT].all_count, maps.services[WEB_FRONT].id) == (0, 1)


def test_the_local_set_is_behind_the_other(maps: Maps, table: ServiceTable) -> None:
    """S-041"""
    wanted = WantedPort(
        {WEB_FRONT: True}, {ONE: CHOSEN, TWO: Use(all=True, local=True), THREE: Use(local=True)}
    )

    maps.write(table.plan({WEB: wanted}))

    assert maps.services[WEB_FRONT].local
    assert maps.chosen(WEB_FRONT) == {ONE, TWO}
    assert maps.chosen(WEB_FRONT, local=True) == {TWO, THREE}


def test_an_endpoint_that_ends_keeps_its_generation(maps: Maps, table: ServiceTable) -> None:
    """S-074, S-075"""
    maps.write(table.plan({WEB: port(ONE, TWO)}))
    before = {one.addr: one for one in maps.backends.values()}

    maps.write(table.plan({WEB: WantedPort({WEB_FRONT: False}, {ONE: Use(), TWO: CHOSEN})}))

    after = {one.addr: one for one in maps.backends.values()}
    assert maps.chosen(WEB_FRONT) == {TWO}
    assert after[ONE[0]].generation == before[ONE[0]].generation
    assert not after[ONE[0]].all


def test_an_endpoint_that_is_gone_gets_another_generation(maps: Maps, table: ServiceTable) -> None:
    """S-166, S-173: after no slot names it any more, which `Maps` checks."""
    maps.write(table.plan({WEB: port(ONE, TWO)}))
    (index,) = (at for at, one in maps.backends.items() if one.addr == ONE[0])
    before = maps.backends[index]

    maps.write(table.plan({WEB: port(TWO)}))

    assert maps.backends[index].generation == before.generation + 1
    assert maps.backends[index].service == 0


def test_an_endpoint_with_another_port_is_another(maps: Maps, table: ServiceTable) -> None:
    """S-078: so datagrams leave the old port with the next one."""
    maps.write(table.plan({WEB: port(ONE)}))
    (index,) = (at for at, one in maps.backends.items() if one.addr == ONE[0])
    before = maps.backends[index]

    maps.write(table.plan({WEB: port((ONE[0], ONE[1] + 1))}))

    assert maps.backends[index].generation == before.generation + 1
    assert maps.chosen(WEB_FRONT) == {(ONE[0], ONE[1] + 1)}


def test_nothing_is_used_again_before_a_second_has_passed(maps: Maps, table: ServiceTable) -> None:
    """S-163"""
    maps.write(table.plan({WEB: port(ONE)}))
    first, base = next(iter(maps.backends)), maps.services[WEB_FRONT].all_base

    maps.write(table.plan({WEB: port(TWO)}))
    assert table.has_retired
    table.release()
    assert maps.slots[maps.services[WEB_FRONT].all_base] != first
    assert maps.services[WEB_FRONT].all_base != base
    maps.write(table.plan({WEB: port(ONE)}))
    assert maps.slots[maps.services[WEB_FRONT].all_base] != first
    table.release()
    maps.write(table.plan({WEB: port(THREE)}))

    assert maps.slots[maps.services[WEB_FRONT].all_base] == first
    assert maps.backends[first].generation == 3


def test_what_is_the_same_is_not_written(maps: Maps, table: ServiceTable) -> None:
    maps.write(table.plan({WEB: port(ONE, TWO)}))

    assert not table.plan({WEB: port(ONE, TWO)})


def test_one_endpoint_more_writes_no_other(maps: Maps, table: ServiceTable) -> None:
    """S-007, S-158: each service port is planned by itself."""
    maps.write(table.plan({WEB: port(ONE), DNS: port(TWO, front=DNS_FRONT)}))

    made = table.plan({WEB: port(ONE, THREE)})

    assert {one.addr for one in made.backends.values()} == {THREE[0]}
    assert list(made.services) == [WEB_FRONT]


def test_an_address_may_go_from_one_service_to_another(maps: Maps, table: ServiceTable) -> None:
    """S-020, S-088: nobody is led to the former's endpoints."""
    other = PortKey("shop/new", "http", "TCP", 4)
    maps.write(table.plan({WEB: port(ONE)}))
    old = maps.services[WEB_FRONT].id

    maps.write(table.plan({other: port(TWO), WEB: None}))

    assert maps.chosen(WEB_FRONT) == {TWO}
    assert maps.services[WEB_FRONT].id != old
    assert maps.services[FrontendKey(WEB_IP)] == MARKER


@pytest.mark.parametrize("order", [(WEB, DNS), (DNS, WEB)])
def test_two_services_may_exchange_their_addresses(
    maps: Maps, table: ServiceTable, order: tuple[PortKey, ...]
) -> None:
    maps.write(table.plan({WEB: port(ONE), DNS: port(TWO, front=DNS_FRONT)}))
    wanted = {WEB: port(ONE, front=DNS_FRONT), DNS: port(TWO)}

    maps.write(table.plan({key: wanted[key] for key in order}))

    assert maps.chosen(DNS_FRONT) == {ONE}
    assert maps.chosen(WEB_FRONT) == {TWO}


def test_a_restart_changes_nothing(maps: Maps, table: ServiceTable) -> None:
    """S-079, S-149"""
    ends = {ONE: CHOSEN, TWO: Use(all=True, local=True), THREE: Use()}
    want = {WEB: WantedPort({WEB_FRONT: False}, ends, 5), DNS: port(front=DNS_FRONT)}
    maps.write(table.plan(want))

    again = ServiceTable(maps.have(), ROOM)

    assert not again.plan(want)


def test_what_went_while_nobody_looked_goes_after_a_restart(
    maps: Maps, table: ServiceTable
) -> None:
    """S-031, S-032: once all is listed."""
    maps.write(table.plan({WEB: port(ONE, TWO), DNS: port(THREE, front=DNS_FRONT)}))

    maps.write(ServiceTable(maps.have(), ROOM).plan({WEB: port(TWO)}))

    assert maps.services.keys() == {WEB_FRONT, FrontendKey(WEB_IP)}
    assert {one.addr for one in maps.backends.values() if one.service} == {TWO[0]}


@pytest.mark.parametrize("steps", range(12))
def test_whoever_is_killed_while_writing_is_continued(steps: int) -> None:
    """S-150: at each step of the first write, and of a change."""
    maps = Maps()
    first = {WEB: port(ONE, TWO), DNS: port(THREE, front=DNS_FRONT)}
    second = {WEB: port(TWO, THREE), DNS: port(ONE, front=DNS_FRONT)}
    left = [steps]
    maps.write(part(ServiceTable(maps.have(), ROOM).plan(first), left))
    maps.write(part(ServiceTable(maps.have(), ROOM).plan(second), left))

    maps.write(ServiceTable(maps.have(), ROOM).plan(second))

    assert maps.chosen(WEB_FRONT) == {TWO, THREE}
    assert maps.chosen(DNS_FRONT) == {ONE}
    assert {one.addr for one in maps.backends.values() if one.service} == {
        ONE[0], TWO[0], THREE[0],
    }  # fmt: skip


def part(made: Changes, left: list[int]) -> Changes:
    """The first steps of what was to be written."""
    kept = Changes()
    for name in ("backends", "slots", "services", "removed", "gone"):
        for key, value in getattr(made, name).items():
            if left[0] > 0:
                getattr(kept, name)[key] = value
                left[0] -= 1
    return kept


@pytest.mark.parametrize(
    ("room", "map_name"),
    [
        (Room(services=2, slots=64, backends=64), "services or slots"),
        (Room(services=64, slots=2, backends=64), "services or slots"),
        (Room(services=64, slots=64, backends=3), "backends"),
    ],
)
def test_what_has_no_room_is_left_out_and_named(maps: Maps, room: Room, map_name: str) -> None:
    table = ServiceTable(maps.have(), room)
    maps.write(table.plan({WEB: port(ONE, TWO)}))

    maps.write(table.plan({DNS: port(THREE, front=DNS_FRONT)}))

    assert table.left_out == {DNS: f"there is no room in the map {map_name}"}
    assert DNS_FRONT not in maps.services
    assert maps.chosen(WEB_FRONT) == {ONE, TWO}


def test_what_was_left_out_comes_when_there_is_room(maps: Maps) -> None:
    table = ServiceTable(maps.have(), Room(services=64, slots=64, backends=3))
    maps.write(table.plan({WEB: port(ONE, TWO)}))
    maps.write(table.plan({DNS: port(THREE, front=DNS_FRONT)}))
    maps.write(table.plan({WEB: None}))
    for _ in range(2):
        table.release()

    maps.write(table.plan({}))

    assert table.left_out == {}
    assert maps.chosen(DNS_FRONT) == {THREE}


ENDS = (ONE, TWO, THREE)
PORTS = [PortKey("shop/web", str(number), "TCP", 4) for number in range(4)]
FRONTS = [FrontendKey(WEB_IP, number + 1, 6) for number in range(4)]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.one_of(st.none(), st.integers(0, 3)),
            st.sets(st.sampled_from(ENDS)),
            st.sampled_from(["", "release", "restart"]),
        ),
        max_size=25,
    )
)
def test_any_order_of_changes_leaves_the_maps_as_wanted(steps) -> None:
    maps = Maps()
    table, want = ServiceTable(maps.have(), ROOM), dict[PortKey, WantedPort | None]()
    for number, front, ends, what in steps:
        if what == "release":
            table.release()
        key = PORTS[number]
        taken = {front for one in want.values() if one for front in one.frontends}
        free = front is not None and (FRONTS[front] not in taken)
        one = port(*sorted(ends, key=str), front=FRONTS[front]) if free else None
        want[key] = one
        if what == "restart":
            table = ServiceTable(maps.have(), ROOM)
            maps.write(table.plan({key: one for key, one in want.items() if one}))
        else:
            maps.write(table.plan({key: one}))
        wanted = {front: one for one in want.values() if one for front in one.frontends}
        assert {key for key in maps.services if key.port} == wanted.keys()
        for front, one in wanted.items():
            assert maps.chosen(front) == set(one.ends)
