# SPDX-License-Identifier: Apache-2.0
"""Sets of addresses in the kernel: as they are read by netlink, and written a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from pycni.cluster import IPAddress
from pycni.errors import SetupError
from pycni.kernel import nft, nft_table
from pycni.kernel.nft_elements import Elements
from pycni.kernel.nft_table import PIECE, AddressSet, Table
from support import kernel
from support.labs import within

TABLE = "ours"
WHAT = "a table of the tests"
FIRST: dict[int, IPAddress] = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}

in_both_families = pytest.mark.parametrize("version", [4, 6])


def made(version: int, addresses: Any = ()) -> AddressSet:
    return AddressSet("nodes", version, frozenset(addresses))


def many(version: int, count: int) -> list[IPAddress]:
    return [FIRST[version] + number for number in range(count)]


@pytest.fixture
def netns() -> Iterator[str]:
    with kernel.netns() as path:
        yield path


def have(version: int, addresses: Any = ()) -> None:
    nft_table.write(Table(TABLE, (), sets=(made(version, addresses),)), what=WHAT)


def read() -> Elements | None:
    return nft.addresses(TABLE, "nodes", what=WHAT)


def write(wanted: AddressSet) -> bool:
    return nft_table.write_addresses(TABLE, wanted, what=WHAT)


@in_both_families
@pytest.mark.parametrize("count", [0, 1, PIECE + 1])
def test_what_was_written_is_read(netns: str, version: int, count: int) -> None:
    wanted = frozenset(many(version, count))
    within(netns, partial(have, version))

    assert within(netns, lambda: write(made(version, wanted)))
    assert within(netns, read) == wanted


@in_both_families
def test_a_set_is_compared_with_what_is_wanted(netns: str, version: int) -> None:
    wanted, (stranger,) = frozenset(many(version, 3)), many(version, 4)[3:]
    look = partial(nft.count_among, TABLE, "nodes", wanted, what=WHAT)
    assert within(netns, look) is None  # there is no table

    within(netns, partial(have, version, wanted))
    assert within(netns, look) == len(wanted)

    within(netns, partial(have, version, wanted - {FIRST[version]}))
    assert within(netns, look) == len(wanted) - 1

    within(netns, partial(have, version, wanted - {FIRST[version]} | {stranger}))
    assert within(netns, look) is None


@in_both_families
def test_all_others_go_and_what_is_there_stays(netns: str, version: int) -> None:
    all_of_them = many(version, 3 * PIECE)
    within(netns, partial(have, version, all_of_them[: 2 * PIECE]))

    assert within(netns, lambda: write(made(version, all_of_them[PIECE:])))
    assert within(netns, read) == frozenset(all_of_them[PIECE:])


def test_what_an_administrator_added_with_a_comment_is_read(netns: str) -> None:
    within(netns, partial(have, 4))
    command = f'add element inet {TABLE} nodes {{ 192.0.2.9 comment "mine" }}'
    within(netns, lambda: nft.run(command, what=WHAT))

    assert within(netns, read) == frozenset([ip_address("192.0.2.9")])


def test_without_the_table_or_the_set_nothing_is_written(netns: str) -> None:
    assert within(netns, read) is None
    assert within(netns, lambda: write(made(4, many(4, 1)))) is False

    within(netns, lambda: nft_table.write(Table(TABLE, ()), what=WHAT))

    assert within(netns, read) is None
    assert within(netns, lambda: write(made(4, many(4, 1)))) is False


def test_a_set_that_takes_no_such_addresses_is_said(netns: str) -> None:
    within(netns, partial(have, 4))

    with pytest.raises(SetupError, match=f"refused {WHAT}"):
        within(netns, lambda: write(made(6, many(6, 1))))


def test_a_set_that_goes_meanwhile_is_gone(netns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = iter([frozenset[IPAddress](), None])
    monkeypatch.setattr(nft, "addresses", lambda *_, **__: next(known))

    assert within(netns, lambda: write(made(4, many(4, 1)))) is False


@pytest.mark.parametrize(
    "declared",
    [
        "type ipv4_addr\nelements = { * }",
        "type ipv4_addr\nflags timeout\nelements = { 192.0.2.9 timeout 1h }",
        "type ipv4_addr\nflags interval\nelements = { 192.0.2.0/25, 198.51.100.1 }",
    ],
    ids=["catch-all", "timeout", "interval"],
)
def test_whatever_others_put_in_goes(netns: str, declared: str) -> None:
    made_by_others = f"table inet {TABLE} {{\nset nodes {{\n{declared}\n}}\n}}\n"
    within(netns, lambda: nft.run(made_by_others, what=WHAT))
    ours = frozenset(many(4, 3))

    assert within(netns, partial(nft.count_among, TABLE, "nodes", ours, what=WHAT)) is None
    assert within(netns, lambda: write(made(4, ours)))
    found = within(netns, read)
    assert found is not None
    assert frozenset(one for one in found if not isinstance(one, bytes)) >= ours
    assert ip_address("192.0.2.9") not in found
    assert within(netns, lambda: write(made(4)))
    assert [one for one in within(netns, read) or () if not isinstance(one, bytes)] == []


@pytest.mark.parametrize("kind", ["inet_service", "ipv4_addr . inet_service"])
def test_a_set_of_other_keys_differs(netns: str, kind: str) -> None:
    declared = f"set nodes {{\ntype {kind}\n}}"
    element = "80" if kind == "inet_service" else "192.0.2.1 . 80"
    add = f"table inet {TABLE} {{\n{declared}\n}}\nadd element inet {TABLE} nodes {{ {element} }}\n"
    within(netns, lambda: nft.run(add, what=WHAT))
    table = Table(TABLE, (), sets=(made(4, many(4, 1)),))

    found = within(netns, lambda: nft_table.differences(table, what=WHAT))

    assert "changed" in [one.found for one in found]  # and a newer nft's type ends older ones


def test_a_set_that_others_change_meanwhile_is_written(
    netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is deleted must be there: the kernel refuses the transaction."""
    within(netns, partial(have, 4, many(4, 2)))
    with monkeypatch.context() as patched:
        patched.setattr(nft, "addresses", lambda *_, **__: frozenset(many(4, 5)))
        assert within(netns, lambda: write(made(4, many(4, 3))))

    assert within(netns, read) == frozenset(many(4, 3))
