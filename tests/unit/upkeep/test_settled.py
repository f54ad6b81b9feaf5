# SPDX-License-Identifier: Apache-2.0
"""pycni/upkeep/settled.py: which parts are not looked at again, and that nothing is missed."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.errors import NotAvailable
from pycni.faults import Fault
from pycni.upkeep.part import Part
from pycni.upkeep.settled import FREE, SHARE, TRUST, Settled

GONE = Fault("table", "an entry", "gone")


SEEN: Any = SimpleNamespace()


class Kernel:
    """A table, and how often it was compared."""

    def __init__(self) -> None:
        self.entries = ["a", "b"]
        self.looks = 0
        self.meanwhile: list[Any] = []
        """What others do right after a look."""
        self.now = 1000.0
        self.refuses: Exception | None = None

    def faults(self, *_: object) -> Iterator[Fault]:
        self.looks += 1
        if self.entries != ["a", "b"]:
            yield GONE
        for do in self.meanwhile:
            do()
        self.meanwhile = []

    def state(self, *_: object) -> object:
        if self.refuses:
            raise self.refuses
        return tuple(self.entries)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def look(kernel: Kernel) -> Any:
    settled = Settled(lambda: kernel.now)
    part = Part("table", kernel.faults, state=kernel.state)
    whole = SimpleNamespace()

    def look(d: Any = whole) -> list[Fault]:
        return settled.look(d, lambda: SEEN, [part])

    return look


def test_what_was_well_and_is_as_it_was_is_not_compared_again(kernel: Kernel, look: Any) -> None:
    assert [look(), look(), look()] == [[], [], []]
    assert kernel.looks == 1


def test_what_others_change_is_found(kernel: Kernel, look: Any) -> None:
    look()
    kernel.entries.pop()

    assert look() == [GONE]


def test_a_fault_is_found_at_every_look_until_it_is_mended(kernel: Kernel, look: Any) -> None:
    look()
    kernel.entries = []
    assert [look(), look()] == [[GONE], [GONE]]

    kernel.entries = ["a", "b"]
    assert [look(), look()] == [[], []]
    assert kernel.looks == 4


def test_the_same_damage_is_found_again_after_it_was_mended(kernel: Kernel, look: Any) -> None:
    for _ in range(2):
        kernel.entries = []
        assert look() == [GONE]
        kernel.entries = ["a", "b"]
        assert look() == []


def test_what_changes_while_it_is_looked_at_is_not_taken_for_well(
    kernel: Kernel, look: Any
) -> None:
    kernel.meanwhile.append(kernel.entries.pop)

    assert look() == []
    assert look() == [GONE]


def test_another_description_is_compared(kernel: Kernel, look: Any) -> None:
    look()
    other = SimpleNamespace()

    assert [look(other), look(other), look()] == [[], [], []]
    assert kernel.looks == 3


def test_nothing_is_taken_on_trust_for_long(kernel: Kernel, look: Any) -> None:
    look()
    kernel.now += TRUST
    look()

    assert kernel.looks == 2


@pytest.mark.parametrize("error", [NotAvailable("no map"), OSError(1, "not you")])
def test_a_part_whose_state_cannot_be_had_is_looked_at(
    kernel: Kernel, look: Any, error: Exception
) -> None:
    look()
    kernel.refuses = error
    kernel.entries.pop()

    assert look() == [GONE]


def test_a_part_without_a_state_is_always_looked_at(kernel: Kernel) -> None:
    settled = Settled(lambda: kernel.now)
    part = Part("table", kernel.faults)

    for _ in range(3):
        settled.look(SimpleNamespace(), lambda: SEEN, [part])

    assert kernel.looks == 3


@pytest.mark.parametrize(("took", "rest"), [(1.0, 1.0 / SHARE), (60.0, TRUST)])
def test_a_costly_look_at_what_is_others_is_paid_for_by_a_rest(
    kernel: Kernel, took: float, rest: float
) -> None:
    spent = iter((0.0, took, took, took))
    settled = Settled(lambda: kernel.now, lambda: next(spent))
    part = Part("table", kernel.faults, state=kernel.state, is_others=True)
    kernel.entries = []

    def look() -> list[Fault]:
        return settled.look(SimpleNamespace(), lambda: SEEN, [part])  # type: ignore[arg-type]

    assert [look(), look()] == [[GONE], [GONE]]
    kernel.entries = ["a", "b"]
    kernel.now += rest - 1
    assert look() == [GONE]
    assert kernel.looks == 1
    kernel.now += 1
    assert look() == []


@pytest.mark.parametrize(("is_others", "took"), [(False, 9.0), (True, FREE)])
def test_what_is_ours_or_costs_little_never_rests(
    kernel: Kernel, is_others: bool, took: float
) -> None:
    spent = iter((0.0, took, took, took))
    settled = Settled(lambda: kernel.now, lambda: next(spent))
    part = Part("table", kernel.faults, state=kernel.state, is_others=is_others)

    for _ in range(2):
        settled.look(SimpleNamespace(), lambda: SEEN, [part])  # type: ignore[arg-type]

    assert kernel.looks == 2
