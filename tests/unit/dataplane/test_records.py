# SPDX-License-Identifier: Apache-2.0
"""Layouts and the values that are packed into them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import ip_address

import pytest

from pycni.cluster import IPAddress
from pycni.dataplane.records import (
    Layout,
    Only,
    Record,
    pack_address,
    pack_members,
    unpack_address,
)

POD = ip_address("10.244.1.5")
POD6 = ip_address("fd00:10:244:1::5")
MAC = "02:00:00:00:00:05"


class Trait(IntFlag):
    LARGE = 1
    LOUD = 8


LAYOUT = Layout(
    "thing",
    "=IH2x6s2s16s",
    (("number", "int"), ("flags", Trait), ("mac", "mac"), ("port", "port"), ("place", "address")),
)


@dataclass(frozen=True)
class Thing:
    number: bool
    large: bool
    loud: bool
    mac: str
    port: int
    place: IPAddress


@dataclass(frozen=True)
class Swapped:
    number: int
    loud: bool
    large: bool
    mac: str
    port: int
    place: IPAddress


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("loud", [True, False])
def test_a_record_comes_back_as_it_went(large: bool, loud: bool) -> None:
    record = Record(LAYOUT, Thing, number=bool)
    thing = Thing(True, large, loud, MAC, 4789, POD6)

    back = record.unpack(record.pack(thing))

    assert back == thing
    assert back.number is True


def test_every_member_is_where_the_layout_has_it() -> None:
    raw = Record(LAYOUT, Thing).pack(Thing(True, True, True, MAC, 4789, POD))

    assert raw[:4] == (1).to_bytes(4, sys.byteorder)
    assert raw[4:8] == (9).to_bytes(4, sys.byteorder)
    assert raw[8:14].hex(":") == MAC
    assert raw[14:16] == (4789).to_bytes(2, "big")
    assert raw[16:] == pack_address(POD)
    assert len(raw) == LAYOUT.size


def test_a_bit_without_a_name_is_left_out() -> None:
    record = Record(LAYOUT, Thing)
    raw = bytearray(record.pack(Thing(True, False, True, MAC, 1, POD)))
    raw[4] |= 4

    assert record.unpack(bytes(raw)) == Thing(True, False, True, MAC, 1, POD)


def test_a_class_with_other_fields_is_refused() -> None:
    with pytest.raises(TypeError, match=r"struct thing has .*'large', 'loud'.* Swapped has"):
        Record(LAYOUT, Swapped)


def test_the_only_member_stands_for_the_struct() -> None:
    one = Only(Layout("one", "=16s", (("place", "address"),)))

    assert one.unpack(one.pack(POD)) == POD
    assert one.pack(POD) == pack_address(POD)


def test_members_are_packed_by_name_and_structs_as_they_are() -> None:
    layout = Layout("outer", "=2sI", (("inner", "struct inner"), ("number", "int")))

    assert pack_members(layout, {"number": True, "inner": b"ab"}) == b"ab\1\0\0\0"


def test_a_member_that_is_missing_or_unknown_is_named() -> None:
    layout = Layout("outer", "=I", (("number", "int"),))

    with pytest.raises(KeyError, match="number"):
        pack_members(layout, {})
    with pytest.raises(ValueError, match="outer has no letter"):
        pack_members(layout, {"number": 1, "letter": 2})


@pytest.mark.parametrize("address", [POD, POD6])
def test_an_address_comes_back_as_it_went(address: IPAddress) -> None:
    assert unpack_address(pack_address(address)) == address


def test_ipv4_addresses_are_v4_mapped_in_network_order() -> None:
    assert pack_address(POD).hex() == "00000000000000000000ffff0af40105"


@pytest.mark.parametrize(
    ("name", "first", "size"),
    [("number", 0, 4), ("flags", 4, 2), ("mac", 8, 6), ("port", 14, 2), ("place", 16, 16)],
)
def test_the_bytes_of_a_member_are_known(name: str, first: int, size: int) -> None:
    assert LAYOUT.place(name) == range(first, first + size)


def test_the_bytes_of_a_member_that_is_not_there_are_not() -> None:
    with pytest.raises(ValueError, match="colour"):
        LAYOUT.place("colour")
