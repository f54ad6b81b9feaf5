# SPDX-License-Identifier: Apache-2.0
"""What is printed: a line per case, a score per subject, a table of all."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from conformance.results import FAIL, PASS, SKIP, Outcome, Score

GROUPS = {
    "A": "environment",
    "B": "stdin",
    "C": "ADD",
    "D": "DEL",
    "E": "CHECK",
    "F": "VERSION, STATUS, GC",
    "G": "IPAM, chains, capabilities",
    "I": "concurrency, kills",
    "P": "the plugin's own",
}
"""By the first letter of a case's id."""


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def line(outcome: Outcome) -> None:
    """One case."""
    reason = f"  -- {outcome.reason}" if outcome.reason else ""
    say(f"{outcome.result:4} {outcome.case:32} {outcome.title}{reason}")


def table(scores: Mapping[str, Sequence[Outcome]]) -> str:
    """Scores by group, in Markdown: passed / failed / skipped."""
    rows = [["group", *scores]]
    for letter, title in GROUPS.items():
        parts = {
            name: [one for one in outcomes if one.case.startswith(letter)]
            for name, outcomes in scores.items()
        }
        if any(parts.values()):
            rows.append([f"{letter} {title}", *(_cell(list(part)) for part in parts.values())])
    rows.append(["all", *(_cell(list(outcomes)) for outcomes in scores.values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = (
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(f"| {text} |" for text in lines)


def differing(scores: Mapping[str, Sequence[Outcome]]) -> str:
    """The cases that not every subject passes, in Markdown."""
    by_name = {name: {one.case: one for one in found} for name, found in scores.items()}
    titles = {one.case: one.title for found in scores.values() for one in found}
    lines = [f"| case | {' | '.join(scores)} | must hold |", "|---" * (len(scores) + 2) + "|"]
    for case, title in titles.items():
        results = [by_name[name][case].result if case in by_name[name] else "" for name in scores]
        if FAIL in results:
            lines.append(f"| {case} | {' | '.join(results)} | {title} |")
    return "\n".join(lines)


def _cell(outcomes: list[Outcome]) -> str:
    score = Score.of(outcomes)
    return f"{score.passed} / {score.failed} / {score.skipped}" if outcomes else ""


def results_seen(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """For JSON."""
    return {kind: sum(one.result == kind for one in outcomes) for kind in (PASS, FAIL, SKIP)}
