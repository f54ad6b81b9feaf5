# SPDX-License-Identifier: Apache-2.0
"""Samples as a table: medians, spread, and how pycni compares with the reference of each row's
measurement; the same as JSON. Says where a target is missed; fails for nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RATIO, DIFFERENCE, VALUE = "ratio", "difference", "value"

HEAD = ("", "", "median", "quartiles", "to reference", "target", "")


@dataclass(frozen=True)
class Target:
    """At most `limit`: a ratio to the reference, a difference in its unit, or a value."""

    kind: str
    limit: float

    def __str__(self) -> str:
        return {RATIO: f"≤ {self.limit:.2f} ×", DIFFERENCE: f"≤ +{self.limit:g}"}.get(
            self.kind, f"≤ {self.limit:g}"
        )


@dataclass(frozen=True)
class Measurement:
    """Samples of each contender, of the same rounds in the same order."""

    title: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    reference: str | None
    target: Target | None = None
    judged: str = "pycni"
    """Whom the target is for."""

    def compared(self, name: str) -> float | None:
        """Median over the rounds of a contender's ratio to the reference, or difference from it."""
        if self.reference in (None, name):
            return None
        pairs = zip(self.samples[name], self.samples[self.reference or ""], strict=True)
        if self.target is not None and self.target.kind == DIFFERENCE:
            return statistics.median(own - other for own, other in pairs)
        return statistics.median(own / other for own, other in pairs)

    @property
    def missed(self) -> bool:
        if self.target is None:
            return False
        found = self.compared(self.judged)
        median = statistics.median(self.samples[self.judged])
        return (median if found is None else found) > self.target.limit


def lines(measurements: Iterable[Measurement]) -> list[str]:
    """The table in Markdown, one row per contender of a measurement."""
    rows: list[tuple[str, ...]] = [HEAD]
    for one in measurements:
        for name, samples in one.samples.items():
            judged = one.target is not None and name == one.judged
            rows.append(
                (
                    f"{one.title}, {one.unit}" if name == next(iter(one.samples)) else "",
                    name,
                    f"{statistics.median(samples):.1f}",
                    "{:.1f} – {:.1f}".format(*quartiles(samples)) if len(samples) > 1 else "",
                    _comparison(one, name),
                    str(one.target) if judged else "",
                    ("missed" if one.missed else "met") if judged else "",
                )
            )
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, the first row its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]]


def document(measurements: Iterable[Measurement]) -> list[dict[str, Any]]:
    """For JSON: everything that was measured, and what the table has of it."""
    return [
        {
            "title": one.title,
            "unit": one.unit,
            "reference": one.reference,
            "target": None if one.target is None else vars(one.target),
            "judged": one.judged,
            "missed": one.missed,
            "contenders": {
                name: {
                    "median": statistics.median(samples),
                    "quartiles": quartiles(samples),
                    "compared": one.compared(name),
                    "samples": list(samples),
                }
                for name, samples in one.samples.items()
            },
        }
        for one in measurements
    ]


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """The middle half of the samples lies between these."""
    if len(samples) < 2:
        return samples[0], samples[0]
    first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, third


def _comparison(one: Measurement, name: str) -> str:
    found = one.compared(name)
    if found is None:
        return ""
    if one.target is not None and one.target.kind == DIFFERENCE:
        return f"{found:+.1f}"
    return f"{found:.2f} ×"
