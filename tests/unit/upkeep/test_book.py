# SPDX-License-Identifier: Apache-2.0
"""What the agent keeps of its mends, and when it stops a quarrel."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.faults import Fault
from pycni.settings import Settings
from pycni.upkeep.book import FIRST_REST, LONGEST_REST, MINUTE, OFTEN, Book, Tally, path_of

ROUTE = Fault("routes", "the route to 10.244.0.0/16 by pycni0", "gone")
OTHER_ROUTE = Fault("routes", "the route to fd00::/56 by pycni0", "gone")
START = 1000.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", run_dir=tmp_path / "run")


def mend(book: Book, *times: float, fault: Fault = ROUTE) -> None:
    for now in times:
        book.mended(fault, now=now)


def test_what_is_undone_a_second_time_is_mended_again() -> None:
    book = Book()

    mend(book, START, START + 1)

    assert not book.is_undone_often(ROUTE, now=START + 2)


def test_what_is_undone_three_times_in_a_minute_is_a_quarrel() -> None:
    book = Book()

    mend(book, START, START + 1, START + 2)

    assert book.is_undone_often(ROUTE, now=START + 3)
    assert not book.is_undone_often(OTHER_ROUTE, now=START + 3)


def test_three_times_in_more_than_a_minute_is_none() -> None:
    book = Book()

    mend(book, START, START + MINUTE / 2, START + MINUTE)

    assert not book.is_undone_often(ROUTE, now=START + MINUTE + 1)


def test_a_quarrel_rests_for_a_time_that_doubles() -> None:
    book, now = Book(), START
    lengths = []
    for _ in range(12):
        mend(book, *[now] * OFTEN)
        rest = book.rest(ROUTE, now=now, by="nft (pid 7)")
        lengths.append(rest.length)
        assert book.is_resting(ROUTE, now=rest.until - 1)
        assert not book.is_resting(OTHER_ROUTE, now=now)
        assert not book.is_resting(ROUTE, now=rest.until)
        assert not book.is_undone_often(ROUTE, now=rest.until)
        now = rest.until

    assert lengths[:3] == [FIRST_REST, 2 * FIRST_REST, 4 * FIRST_REST]
    assert lengths[-1] == LONGEST_REST


def test_a_rest_ends_when_the_clock_is_set_back() -> None:
    """By an hour, it would take an hour more."""
    book = Book()
    book.rest(ROUTE, now=START, by="")

    assert book.is_resting(ROUTE, now=START)
    assert not book.is_resting(ROUTE, now=START - 1)


def test_mends_before_the_clock_was_set_back_make_no_quarrel() -> None:
    book = Book()
    mend(book, START + 3600, START + 3601)

    book.forget_old(now=START)
    mend(book, START)

    assert not book.is_undone_often(ROUTE, now=START + 1)


def test_a_quarrel_that_ended_long_ago_is_forgotten() -> None:
    book = Book()
    first = book.rest(ROUTE, now=START, by="")

    book.forget_old(now=first.until + first.length + 1)

    assert book.rest(ROUTE, now=2 * START, by="").length == FIRST_REST


def test_old_mends_are_forgotten_but_counted() -> None:
    book = Book()
    mend(book, START, START + 1)
    mend(book, START + 2, fault=OTHER_ROUTE)

    book.forget_old(now=START + MINUTE + 2)

    assert book.tallies == {"routes": Tally(3, START + 2)}
    mend(book, START + MINUTE + 3)
    assert not book.is_undone_often(ROUTE, now=START + MINUTE + 3)


def test_a_rest_says_who_did_it_if_that_is_known() -> None:
    assert "last by ufw (pid 7)" in Book().rest(ROUTE, now=START, by="ufw (pid 7)").words
    assert "last by" not in Book().rest(ROUTE, now=START, by="").words


def test_whoever_puts_things_right_ends_all_quarrels() -> None:
    book = Book()
    book.rest(OTHER_ROUTE, now=START, by="")
    mend(book, START, START, START)

    book.forgive()

    assert not book.is_resting(OTHER_ROUTE, now=START + 1)
    assert not book.is_undone_often(ROUTE, now=START + 1)
    assert book.tallies["routes"].count == 3


def test_readers_get_what_was_written(settings: Settings) -> None:
    book = Book()
    mend(book, START, START + 1)
    book.rest(OTHER_ROUTE, now=START, by="nft (pid 7)")

    book.save(settings)

    read = Book.load(settings)
    assert (read.tallies, read.rests) == (book.tallies, book.rests)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"[]", b"{}", b'{"mended": {"a": {}}, "resting": []}', b"\xff", b"[" * 100_000],
)
def test_a_book_that_cannot_be_read_is_empty(settings: Settings, content: bytes | None) -> None:
    if content is not None:
        settings.run_dir.mkdir()
        path_of(settings).write_bytes(content)

    book = Book.load(settings)

    assert (book.tallies, book.rests) == ({}, {})
