# SPDX-License-Identifier: Apache-2.0
"""pycni/line_limit.py: how many lines about what, and what of that is remembered."""

from __future__ import annotations

from pycni.line_limit import INTERVAL, LineLimit, mention


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_line_about_a_subject_in_an_interval_and_then_how_many_there_were() -> None:
    clock = Clock()
    limit = LineLimit(clock=clock)

    assert [limit.take("pod") for _ in range(3)] == [0, None, None]
    assert limit.take("other pod") == 0
    clock.now += INTERVAL

    assert limit.take("pod") == 2
    assert limit.take("other pod") == 0


def test_a_few_lines_where_a_few_are_allowed() -> None:
    limit = LineLimit(lines=2, clock=Clock())

    assert [limit.take("pod") for _ in range(3)] == [0, 0, None]


def test_no_more_subjects_than_allowed_in_an_interval() -> None:
    clock = Clock()
    limit = LineLimit(subjects=2, clock=clock)

    assert [limit.take(f"pod {n}") for n in range(4)] == [0, 0, None, None]
    clock.now += INTERVAL

    assert [limit.take(f"pod {n}") for n in range(2, 4)] == [0, 0]


def test_lines_that_were_left_out_are_mentioned_if_there_are_any() -> None:
    assert (mention(0), mention(7)) == ("", " lines_left_out=7")
