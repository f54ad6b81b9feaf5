# SPDX-License-Identifier: Apache-2.0
"""Ranges are taken and given back, and none is taken twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pycni.services.ranges import FreeRanges


def test_what_is_used_is_not_taken() -> None:
    free = FreeRanges(10, [(0, 2), (5, 1)])

    assert free.take(3) == 2
    assert free.take(4) == 6
    assert free.take(1) is None


def test_neighbours_become_one_again() -> None:
    free = FreeRanges(9)
    bases = [free.take(3) for _ in range(3)]

    for base in (bases[0], bases[2], bases[1]):
        assert base is not None
        free.give(base, 3)

    assert free.take(9) == 0


@given(st.lists(st.integers(-5, 12), max_size=60))
def test_no_index_is_taken_twice_and_none_is_lost(steps: list[int]) -> None:
    free, held = FreeRanges(40), list[tuple[int, int]]()
    for step in steps:
        if step > 0 and (base := free.take(step)) is not None:
            held.append((base, step))
        elif step < 0 and held:
            free.give(*held.pop(step % len(held)))
        taken = [index for base, count in held for index in range(base, base + count)]
        assert len(set(taken)) == len(taken)
        assert all(0 <= index < 40 for index in taken)

    for one in held:
        free.give(*one)
    assert free.take(40) == 0
