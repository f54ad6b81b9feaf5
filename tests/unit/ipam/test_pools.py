# SPDX-License-Identifier: Apache-2.0
"""Choosing pod addresses: never twice, never a reserved one, never a freed one at once."""

from __future__ import annotations

import logging
import stat
import threading
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cluster import IPAddress, IPNetwork, gateway
from pycni.errors import InvalidPool, PoolExhausted
from pycni.files import alone_in
from pycni.ipam.pools import (
    ROTATION_FILE,
    Pool,
    Rotation,
    node_pool,
    ranges_pool,
    take,
    take_of,
)

NODE4 = ip_network("10.244.1.0/24")
NODE6 = ip_network("fd00:10:244:1::/64")
SMALL4 = ip_network("10.244.1.0/29")
SMALL6 = ip_network("fd00:10:244:1::/125")
POD_ONE = ip_address("10.244.1.2")
POD_TWO = ip_address("10.244.1.3")
POOL4, POOL6 = node_pool(NODE4), node_pool(NODE6)
POD_LAST = ip_address("10.244.1.254")

CIDRS = st.one_of(
    st.builds(lambda bits: IPv4Network((0x0AF40000, bits)), st.integers(24, 30)),
    st.builds(lambda bits: IPv6Network((0xFD << 120, bits)), st.integers(120, 126)),
)


def pick(cidr: IPNetwork, used: Collection[IPAddress], last: IPAddress | None) -> IPAddress:
    return take(node_pool(cidr), last, lambda address: address not in used)


def every_address(cidr: IPNetwork) -> list[IPAddress]:
    return [cidr[index] for index in range(cidr.num_addresses)]


def usable(cidr: IPNetwork) -> list[IPAddress]:
    addresses = every_address(cidr)[2:]
    return addresses[:-1] if cidr.version == 4 else addresses


def take_all(cidr: IPNetwork) -> list[IPAddress]:
    taken: list[IPAddress] = []
    for _ in usable(cidr):
        taken.append(pick(cidr, taken, taken[-1] if taken else None))
    return taken


def test_the_gateway_is_the_first_host_address() -> None:
    assert gateway(NODE4) == ip_address("10.244.1.1")
    assert gateway(NODE6) == ip_address("fd00:10:244:1::1")


def test_the_first_pod_gets_the_address_after_the_gateway() -> None:
    assert pick(NODE4, [], None) == POD_ONE
    assert pick(NODE6, [], None) == ip_address("fd00:10:244:1::2")


def test_a_freed_address_is_not_given_to_the_next_pod() -> None:
    assert pick(NODE4, [], POD_ONE) == POD_TWO


def test_the_first_address_follows_the_last_one() -> None:
    assert pick(NODE4, [], POD_LAST) == POD_ONE


def test_used_addresses_are_passed_over_beyond_the_end_of_the_pool() -> None:
    assert pick(NODE4, {POD_LAST, POD_ONE}, ip_address("10.244.1.253")) == POD_TWO


@pytest.mark.parametrize("stray", ["10.244.1.0", "10.244.1.255", "10.9.9.9", "fd00:10:244:1::5"])
def test_a_last_address_outside_the_pool_begins_at_its_first(stray: str) -> None:
    assert pick(NODE4, [], ip_address(stray)) == POD_ONE


def test_used_addresses_of_other_networks_do_not_count() -> None:
    others = [address for n in range(3, 9) for address in ip_network(f"10.244.{n}.0/29")]

    assert pick(SMALL4, [*others, *SMALL6], None) == POD_ONE


@pytest.mark.parametrize("cidr", [SMALL4, SMALL6])
def test_every_usable_address_of_a_pool_is_given_once(cidr: IPNetwork) -> None:
    assert take_all(cidr) == usable(cidr)


@pytest.mark.parametrize("cidr", [SMALL4, SMALL6])
def test_an_exhausted_pool_says_which_and_how_many(cidr: IPNetwork) -> None:
    taken = take_all(cidr)

    with pytest.raises(PoolExhausted) as caught:
        pick(cidr, taken, taken[-1])

    assert caught.value.message == (
        f"no IP addresses available in {cidr}: {len(taken)} of {len(taken)} are in use"
    )
    assert caught.value.code == 102
    assert caught.value.hint


@pytest.mark.parametrize("cidr", ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"])
def test_a_cidr_without_room_is_refused(cidr: str) -> None:
    with pytest.raises(InvalidPool, match=f"the pod CIDR {cidr} has no room"):
        pick(ip_network(cidr), [], None)
    with pytest.raises(InvalidPool, match=f"the pod CIDR {cidr} has no room"):
        gateway(ip_network(cidr))


def test_the_smallest_pools_hold_what_they_can() -> None:
    assert take_all(ip_network("10.0.0.0/30")) == [ip_address("10.0.0.2")]
    assert len(take_all(ip_network("fd00::/126"))) == 2


@given(CIDRS, st.data())
def test_no_address_is_given_twice_or_is_reserved(cidr: IPNetwork, data: st.DataObject) -> None:
    pool = usable(cidr)
    used = set(data.draw(st.lists(st.sampled_from(every_address(cidr)), max_size=len(pool))))
    last = data.draw(st.none() | st.sampled_from(every_address(cidr)))

    if used >= set(pool):
        with pytest.raises(PoolExhausted):
            pick(cidr, used, last)
    else:
        picked = pick(cidr, used, last)
        assert picked in pool
        assert picked not in used


@given(st.sampled_from([SMALL4, SMALL6]), st.lists(st.integers(0, 9), max_size=60))
def test_a_freed_address_comes_back_only_after_the_pool_wrapped(
    cidr: IPNetwork, moves: list[int]
) -> None:
    live: list[IPAddress] = []
    last: IPAddress | None = None
    seen_since: dict[IPAddress, set[IPAddress]] = {}

    for move in moves:
        if live and (move % 2 or len(live) == len(usable(cidr))):
            live.pop(move % len(live))
            continue
        last = pick(cidr, live, last)
        live.append(last)
        for seen in seen_since.values():
            seen.update(live)
        # Between two gifts of an address, every other was in use at some time.
        assert seen_since.get(last, set(usable(cidr))) >= set(usable(cidr))
        seen_since[last] = set(live)


def test_addresses_that_rest_come_last_and_the_longest_rested_of_them_first() -> None:
    pool = ranges_pool(4, [(POD_ONE, POD_ONE + 3)])
    given_back = {POD_ONE: 30, POD_ONE + 1: 10, POD_ONE + 3: 20}
    asked: list[IPAddress] = []

    with pytest.raises(PoolExhausted, match="4 of 4 are in use"):
        take(pool, None, lambda one: bool(asked.append(one)), since=given_back.get)

    assert asked == [POD_ONE + 2, POD_ONE + 1, POD_ONE + 3, POD_ONE]


def test_rotation_survives_the_process(tmp_path: Path) -> None:
    Rotation(tmp_path).remember({POOL4.name: POD_TWO})
    Rotation(tmp_path).remember({POOL6.name: NODE6[9]})

    assert Rotation(tmp_path).last(POOL4) == POD_TWO
    assert Rotation(tmp_path).last(POOL6) == NODE6[9]
    assert stat.S_IMODE((tmp_path / ROTATION_FILE).stat().st_mode) == 0o600


def test_nothing_was_last_at_the_beginning(tmp_path: Path) -> None:
    assert Rotation(tmp_path / "absent").last(POOL4) is None


def test_a_rotation_that_is_forgotten_leaves_no_file(tmp_path: Path) -> None:
    rotation = Rotation(tmp_path)
    rotation.remember({POOL4.name: POD_TWO})

    rotation.forget()
    rotation.forget()

    assert rotation.last(POOL4) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"10.244.1.0/24": 7}',
        b'{"10.244.1.0/24": "no address"}',
        b'{"10.244.1.0/24": "fd00::9"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_rotation_file_only_means_a_new_beginning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ROTATION_FILE).write_bytes(content)
    rotation = Rotation(tmp_path)

    assert rotation.last(POOL4) is None

    rotation.remember({POOL4.name: POD_TWO})
    assert rotation.last(POOL4) == POD_TWO


def test_a_state_directory_that_cannot_be_written_does_not_fail_an_add(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "state"
    blocker.touch()

    with caplog.at_level(logging.WARNING):
        Rotation(blocker).remember({POOL4.name: POD_ONE})

    assert "rotation not saved" in caplog.text


def test_those_who_remember_at_once_leave_a_whole_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Rotation(tmp_path).remember({POOL4.name: POD_ONE})
    lost = []

    def work(pool: Pool, addresses: list[IPAddress]) -> None:
        for address in addresses:
            Rotation(tmp_path).remember({pool.name: address})
            if Rotation(tmp_path).last(POOL4) is None:
                lost.append(address)

    threads = [
        threading.Thread(target=work, args=(pool, list(islice(hosts.hosts(), 100))))
        for pool, hosts in 2 * [(POOL4, NODE4), (POOL6, NODE6)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert lost == []
    assert caplog.text == ""


def test_one_who_stops_while_it_remembers_keeps_nobody_waiting(tmp_path: Path) -> None:
    rotation = Rotation(tmp_path)
    rotation.remember({POOL4.name: POD_ONE})

    with alone_in(tmp_path) as alone:
        rotation.remember({POOL4.name: POD_TWO})

    assert alone
    assert rotation.last(POOL4) == POD_ONE


def test_excluded_addresses_are_never_given() -> None:
    pool = node_pool(SMALL4).without([ip_network("10.244.1.4/31"), SMALL6])

    assert [address for address in usable(SMALL4) if address in addresses_of(pool)] == [
        ip_address("10.244.1.2"),
        ip_address("10.244.1.3"),
        ip_address("10.244.1.6"),
    ]


def test_a_large_exclusion_costs_nothing() -> None:
    pool = POOL6.without([ip_network("fd00:10:244:1::/65")])

    assert take(pool, None, lambda _: True) == ip_address("fd00:10:244:1:8000::")


def test_ranges_are_used_one_after_the_other_and_each_address_once() -> None:
    pool = ranges_pool(4, [(POD_TWO, POD_TWO + 2), (POD_ONE, POD_TWO + 1)])

    assert addresses_of(pool) == [POD_TWO, POD_TWO + 1, POD_TWO + 2, POD_ONE]


def test_the_pool_is_walked_once_from_the_one_after_the_last() -> None:
    pool = ranges_pool(4, [(POD_ONE, POD_ONE + 3), (POD_LAST, POD_LAST)])

    assert addresses_of(pool, POD_TWO) == [POD_ONE + 2, POD_ONE + 3, POD_LAST, POD_ONE, POD_TWO]


def addresses_of(pool: Pool, last: IPAddress | None = None) -> list[IPAddress]:
    """In the order in which they would be given."""
    asked: list[IPAddress] = []
    with pytest.raises(PoolExhausted):
        take(pool, last, lambda address: bool(asked.append(address)))
    return asked


def test_pools_are_used_one_after_the_other_each_in_its_rotation() -> None:
    first, second = node_pool(SMALL4), node_pool(ip_network("10.244.7.0/29"))
    used: set[IPAddress] = set()
    last: dict[Pool, IPAddress] = {first: POD_TWO}
    got = []
    for _ in range(7):
        pool, address = take_of([first, second], last.get, lambda one: one not in used)
        used.add(address)
        last[pool] = address
        got.append(str(address).removeprefix("10.244."))

    assert got == ["1.4", "1.5", "1.6", "1.2", "1.3", "7.2", "7.3"]


def test_an_address_rests_as_long_as_a_further_pool_has_others() -> None:
    first, second = node_pool(SMALL4), node_pool(ip_network("10.244.7.0/29"))
    rested = dict.fromkeys([first_address(first) + number for number in range(5)], 1)

    pool, address = take_of([first, second], lambda _: None, lambda _: True, since=rested.get)

    assert (pool, address) == (second, ip_address("10.244.7.2"))


def first_address(pool: Pool) -> IPAddress:
    return ip_address(pool.spans[0][0])


def test_pools_that_are_exhausted_are_all_named() -> None:
    pools = [node_pool(SMALL4), node_pool(ip_network("10.244.7.0/29"))]

    with pytest.raises(PoolExhausted, match=r"in 10\.244\.1\.0/29, 10\.244\.7\.0/29: 10 of 10"):
        take_of(pools, lambda _: None, lambda _: False)
