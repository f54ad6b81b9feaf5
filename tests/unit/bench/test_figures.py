# SPDX-License-Identifier: Apache-2.0
"""Ratios, goals and tables of the dataplane's bench, from samples made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report
from bench.figures import Figure, Goal, Samples, figure_rows, goal_rows, ratio
from bench.measures import FIGURES, GOALS, MEASURES
from bench.report import BEGIN, END, Report
from bench.rounds import turned

OURS, THEIRS = "ours", "theirs"
RATE = Figure("rate", "rate", "packets/s")
TIME = Figure("time", "time", "µs", 1, more_is_better=False)


def samples(figure: Figure, **values: list[float]) -> Samples:
    made = Samples()
    for path, each in values.items():
        for value in each:
            made.add(path, {figure.key: value})
    return made


def test_a_ratio_is_the_median_of_those_within_rounds() -> None:
    """The second round is slow for both, and changes nothing; medians of each would."""
    made = samples(RATE, ours=[90.0, 9.0, 60.0], theirs=[100.0, 10.0, 50.0])

    assert ratio(made.of("rate"), OURS, THEIRS) == pytest.approx(0.9)


def test_a_round_without_its_counterpart_is_an_error() -> None:
    made = samples(RATE, ours=[1.0, 2.0], theirs=[1.0])

    with pytest.raises(ValueError, match="shorter"):
        ratio(made.of("rate"), OURS, THEIRS)


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("", "rate", OURS, 0.9, THEIRS), True),
        (Goal("", "rate", OURS, 0.91, THEIRS), False),
        (Goal("", "rate", OURS, 0.9, THEIRS, at_least=False), True),
        (Goal("", "rate", OURS, 0.89, THEIRS, at_least=False), False),
        (Goal("", "rate", OURS, 90), True),
        (Goal("", "rate", OURS, 91), False),
        (Goal("", "rate", OURS, 89, at_least=False), False),
    ],
    ids=lambda value: str(value),
)
def test_a_goal_is_met_up_to_its_limit(goal: Goal, met: bool) -> None:
    made = samples(RATE, ours=[90.0], theirs=[100.0])

    assert goal.met(made.of("rate")) is met


def test_the_goals_table_says_what_was_missed() -> None:
    goals = [
        Goal("fast", "rate", OURS, 0.5, THEIRS),
        Goal("small", "rate", OURS, 10, at_least=False),
    ]
    made = samples(RATE, ours=[80.0, 90.0, 100.0], theirs=[100.0, 100.0, 100.0])

    _, fast, small = goal_rows(goals, made)

    assert fast == ("fast", "≥ 0.50", "0.90", "0.85 – 0.95", "met")
    assert small == ("small", "≤ 10", "90", "85 – 95", "**missed**")


def test_a_path_that_was_not_measured_has_an_empty_cell() -> None:
    made = samples(TIME, theirs=[2.0], ours=[3.0])

    head, row = figure_rows([TIME, RATE], [THEIRS, OURS, "other"], made)

    assert head == ("", THEIRS, OURS, "other")
    assert row == ("time, µs", "2.0 (2.0 – 2.0)", "3.0 (3.0 – 3.0) **1.50 ×**", "")


def test_every_path_is_first_in_turn_and_none_is_left_out() -> None:
    orders = [turned([1, 2, 3], number) for number in range(3)]

    assert [order[0] for order in orders] == [1, 2, 3]
    assert all(sorted(order) == [1, 2, 3] for order in orders)


def test_goals_and_figures_speak_of_the_same_things() -> None:
    keys = [figure.key for figure in FIGURES]

    assert len(set(keys)) == len(keys)
    assert {goal.figure for goal in GOALS} <= set(keys)
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


def test_what_is_between_the_marks_is_replaced_and_nothing_else() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    once = report.put_between_marks(page, "new")

    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert report.put_between_marks(once, "new") == once


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}\n{BEGIN}"])
def test_a_page_without_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="no lines"):
        report.put_between_marks(page, "new")


@pytest.mark.parametrize("page", ["benchmarks.md", "lookups.md"])
def test_the_pages_of_docs_have_the_marks(page: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / page).read_text()

    assert "found it" in report.put_between_marks(text, "found it")


def test_the_document_has_every_sample_and_what_the_goals_found() -> None:
    made = Samples()
    for goal in GOALS:
        for path in (goal.path, goal.reference or goal.path):
            if path not in made.of(goal.figure):
                made.add(path, {goal.figure: 100.0})

    document = json.loads(
        json.dumps(report.document(Report(made, 1, 50, 2.0, 0.5, machine="here")))
    )

    assert [goal["found"] for goal in document["goals"]] == [
        1.0 if goal.reference else 100.0 for goal in GOALS
    ]
    assert document["figures"]["udp"]["samples"] == made.of("udp")
    assert (document["machine"], document["rounds"]) == ("here", 1)
