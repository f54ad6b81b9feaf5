# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/budget.py: what loops use for events is bounded, for all of them together."""

from __future__ import annotations

import pytest

from pycni.agent.budget import BURST, LONGEST_REST, SHARE, Budget, Rest


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_little_work_needs_no_rest() -> None:
    assert Budget(Clock()).charge(BURST) == 0.0


def test_who_used_the_burst_rests_until_the_rest_is_paid() -> None:
    budget = Budget(Clock())
    budget.charge(BURST)

    assert budget.charge(0.012) == pytest.approx(0.012 / SHARE)


def test_what_one_loop_used_another_waits_for() -> None:
    clock = Clock()
    budget = Budget(clock)
    budget.charge(BURST + 0.012)
    clock.now += 0.1

    assert budget.charge(0.003) == pytest.approx(0.015 / SHARE - 0.1)


@pytest.mark.parametrize("loops", [1, 4])
def test_loops_that_never_stop_keep_to_their_share(loops: int) -> None:
    clock = Clock()
    budget = Budget(clock)
    used, due = 0.0, [0.0] * loops
    while clock.now < 60.0:
        for number, until in enumerate(due):
            if until <= clock.now:
                due[number] = clock.now + budget.charge(0.005)
                used += 0.005
        clock.now += 0.001

    assert used == pytest.approx(SHARE * 60.0, rel=0.1)


def test_a_rest_has_an_end() -> None:
    budget = Budget(Clock())

    assert budget.charge(100.0) == LONGEST_REST


def test_what_is_not_used_is_not_saved_for_ever() -> None:
    clock = Clock()
    budget = Budget(clock)
    clock.now += 3600.0

    assert budget.charge(BURST + 0.006) == pytest.approx(0.006 / SHARE)


def test_a_thread_is_charged_for_what_it_used_since_it_was_last_asked() -> None:
    used = Clock()
    rest = Rest(Budget(Clock()), used)
    used.now += BURST
    assert rest.due() == 0.0

    used.now += 0.006

    assert rest.due() == pytest.approx(0.006 / SHARE)
