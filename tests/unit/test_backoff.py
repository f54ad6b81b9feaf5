# SPDX-License-Identifier: Apache-2.0
"""Waits between attempts."""

from __future__ import annotations

import random

from pycni.backoff import BASE, CAP, Backoff


def longest(low: float, high: float) -> float:
    assert low == 0.0
    return high


def test_the_bound_doubles_up_to_the_cap() -> None:
    backoff = Backoff(base=0.5, cap=3.0, uniform=longest)

    assert [backoff.delay() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_success_makes_the_next_wait_short_again() -> None:
    backoff = Backoff(base=0.5, cap=3.0, uniform=longest)
    for _ in range(4):
        backoff.delay()

    backoff.reset()

    assert [backoff.delay() for _ in range(2)] == [0.5, 1.0]


def test_a_base_above_the_cap_is_the_cap() -> None:
    backoff = Backoff(base=5.0, cap=3.0, uniform=longest)

    assert backoff.delay() == 3.0

    backoff.reset()

    assert backoff.delay() == 3.0


def test_thousands_of_failures_stay_at_the_cap() -> None:
    backoff = Backoff(uniform=longest)

    assert max(backoff.delay() for _ in range(5000)) == CAP


def test_waits_are_spread_over_the_whole_time_from_zero() -> None:
    source = random.Random(7)

    first_waits = [Backoff(uniform=source.uniform).delay() for _ in range(1000)]

    assert all(0 <= wait <= BASE for wait in first_waits)
    for low in range(4):
        quarter = [wait for wait in first_waits if low * BASE / 4 <= wait < (low + 1) * BASE / 4]
        assert len(quarter) > 150


def test_two_agents_that_fail_together_do_not_try_again_together() -> None:
    one, other = Backoff(), Backoff()

    assert [one.delay() for _ in range(8)] != [other.delay() for _ in range(8)]
