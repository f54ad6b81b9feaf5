# SPDX-License-Identifier: Apache-2.0
"""pycni/ipam/growth.py: when a node needs another block, and which it can give back."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cluster import IPNetwork
from pycni.ipam import growth

FIRST, SECOND, THIRD = (ip_network(f"10.244.{number}.0/24") for number in (1, 7, 9))
SIX = ip_network("fd00:10:244:1::/64")
SMALL, SMALL_TOO = ip_network("10.244.1.0/28"), ip_network("10.244.1.16/28")
ALL = 253
"""Addresses of a /24 without network, gateway and broadcast."""


@pytest.mark.parametrize(("cidr", "wanted"), [(FIRST, ALL), (SMALL, 13), (SIX, 2**64 - 2)])
def test_the_room_of_a_network_is_what_pods_can_have(cidr: IPNetwork, wanted: int) -> None:
    assert growth.room(cidr) == wanted


def test_addresses_are_counted_by_their_network() -> None:
    elsewhere = ip_network("fe80::/64")[1]
    addresses = [FIRST[2], FIRST[9], SECOND[255], SIX[77], THIRD[1], elsewhere]

    found = growth.count([FIRST, SECOND, SIX], addresses)

    assert found == {FIRST: 2, SECOND: 1, SIX: 1}


def test_without_networks_nothing_is_counted() -> None:
    assert growth.count([], [FIRST[2]]) == {}


@pytest.mark.parametrize(
    ("used", "versions"),
    [({}, []), ({FIRST: ALL - 25}, []), ({FIRST: ALL - 24}, [4]), ({FIRST: ALL}, [4])],
)
def test_a_node_is_short_when_a_tenth_is_left(used: growth.Used, versions: list[int]) -> None:
    assert growth.short([FIRST, SIX], used) == versions


def test_all_blocks_count_together() -> None:
    assert growth.short([FIRST, SECOND], {FIRST: ALL, SECOND: ALL - 50}) == []
    assert growth.short([FIRST, SECOND], {FIRST: ALL, SECOND: ALL - 49}) == [4]


def test_of_small_blocks_a_few_addresses_are_left() -> None:
    assert growth.short([SMALL], {SMALL: 5}) == []
    assert growth.short([SMALL], {SMALL: 6}) == [4]


def test_each_family_is_short_by_itself() -> None:
    six = ip_network("fd00:10:244:1::/124")

    assert growth.short([FIRST, six], {FIRST: ALL, six: 10}) == [4, 6]


def test_an_empty_block_is_spare_if_enough_is_left() -> None:
    assert growth.spare([FIRST, SIX], [SECOND], {FIRST: ALL - 50}) == [SECOND]
    assert growth.spare([FIRST, SIX], [SECOND], {FIRST: ALL - 49}) == []
    assert growth.spare([FIRST, SIX], [SECOND], {SECOND: 1}) == []


def test_the_last_blocks_go_first_and_the_first_of_all_never() -> None:
    assert growth.spare([FIRST], [SECOND, THIRD], {}) == [THIRD, SECOND]
    assert growth.spare([FIRST], [SECOND, THIRD], {FIRST: ALL}) == [THIRD]
    assert growth.spare([FIRST], [], {}) == []


def test_a_block_is_spare_by_what_its_own_family_has() -> None:
    assert growth.spare([FIRST, SIX], [SECOND], {FIRST: ALL}) == []


@given(st.lists(st.integers(0, 13), min_size=1, max_size=8))
def test_who_gives_back_what_is_spare_is_not_short_then(used: list[int]) -> None:
    """Otherwise a node would claim and give back without end."""
    blocks: list[IPNetwork] = [*ip_network("10.244.1.0/24").subnets(new_prefix=28)][: len(used)]
    counts = dict(zip(blocks, used, strict=True))

    spare = growth.spare(blocks[:1], blocks[1:], counts)

    assert not spare or growth.short([one for one in blocks if one not in spare], counts) == []
