# SPDX-License-Identifier: Apache-2.0
"""What is measured, and what it is compared with; pure.

A figure is one number per path and round. Ratios are taken within a round, where the machine was
the same for both, and their median over the rounds is what goals are held against.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.table import quartiles

Values = Mapping[str, Sequence[float]]
"""Of one figure: path to a value per round."""


@dataclass(frozen=True)
class Figure:
    """`key` names it in the JSON file; `places` are the digits behind the point."""

    key: str
    title: str
    unit: str
    places: int = 0
    more_is_better: bool = True


@dataclass(frozen=True)
class Goal:
    """A limit for a path's figure, or for its ratio to a reference."""

    title: str
    figure: str
    path: str
    limit: float
    reference: str | None = None
    at_least: bool = True

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:{'.2f' if self.reference else 'g'}}"

    def found(self, values: Values) -> float:
        if self.reference is None:
            return statistics.median(values[self.path])
        return ratio(values, self.path, self.reference)

    def met(self, values: Values) -> bool:
        found = self.found(values)
        return found >= self.limit if self.at_least else found <= self.limit


class Samples:
    """Every value that was measured."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = {}

    def add(self, path: str, figures: Mapping[str, float]) -> None:
        """What one measure of one round gave for a path."""
        for figure, value in figures.items():
            self._values.setdefault(figure, {}).setdefault(path, []).append(value)

    def of(self, figure: str) -> dict[str, list[float]]:
        """Path to values of a figure; empty if it was not measured."""
        return self._values.get(figure, {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)


def ratio(values: Values, path: str, reference: str) -> float:
    """Median over the rounds of a path's value to the reference's."""
    return statistics.median(ratios(values, path, reference))


def ratios(values: Values, path: str, reference: str) -> list[float]:
    """A path's value to the reference's, round by round."""
    pairs = zip(values[path], values[reference], strict=True)
    return [own / other for own, other in pairs]


def goal_rows(goals: Sequence[Goal], samples: Samples) -> list[tuple[str, ...]]:
    """What was wanted, what was found and the middle half of the rounds, whether it is met."""
    rows: list[tuple[str, ...]] = [("", "target", "found", "quartiles", "")]
    for goal in goals:
        values = samples.of(goal.figure)
        each = values[goal.path]
        if goal.reference is not None:
            each = ratios(values, goal.path, goal.reference)
        found = (
            f"{one:.{2 if goal.reference else 0}f}"
            for one in (goal.found(values), *quartiles(each))
        )
        median, low, high = found
        rows.append(
            (goal.title, str(goal), median, f"{low} – {high}",
             "met" if goal.met(values) else "**missed**")
        )  # fmt: skip
    return rows


def figure_rows(
    figures: Sequence[Figure], paths: Sequence[str], samples: Samples
) -> list[tuple[str, ...]]:
    """A row per figure, a column per path: median, quartiles, ratio to the first path."""
    reference, *_ = paths
    rows: list[tuple[str, ...]] = [("", *paths)]
    for figure in figures:
        values = samples.of(figure.key)
        if any(path in values for path in paths):
            title = f"{figure.title}, {figure.unit}"
            rows.append((title, *(_cell(figure, values, path, reference) for path in paths)))
    return rows


def _cell(figure: Figure, values: Values, path: str, reference: str) -> str:
    if path not in values:
        return ""
    each = values[path]
    median, low, high = (
        f"{one:,.{figure.places}f}" for one in (statistics.median(each), *quartiles(each))
    )
    text = f"{median} ({low} – {high})"
    if path == reference or reference not in values:
        return text
    return f"{text} **{ratio(values, path, reference):.2f} ×**"


def lookup_rows(ways: Mapping[str, str], samples: Samples) -> list[tuple[str, ...]]:
    """A row per way, a column per figure of `samples`: median and quartiles."""
    rows: list[tuple[str, ...]] = [("ns per lookup", *samples)]
    for way, title in ways.items():
        cells = []
        for figure in samples:
            each = samples.of(figure).get(way)
            cells.append("" if each is None else _spread(each))
        rows.append((title, *cells))
    return rows


def _spread(each: Sequence[float], places: int = 1) -> str:
    median, low, high = (f"{x:,.{places}f}" for x in (statistics.median(each), *quartiles(each)))
    return f"{median} ({low} – {high})"
