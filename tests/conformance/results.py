# SPDX-License-Identifier: Apache-2.0
"""What became of a case, and how a case says so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PASS, FAIL, SKIP = "pass", "fail", "skip"


class Skip(Exception):
    """The case does not apply to this plugin; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """One case on one subject; `reason` is empty for a pass."""

    case: str
    title: str
    result: str
    reason: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Score:
    """How often each result came."""

    passed: int
    failed: int
    skipped: int

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> Score:
        counts = [sum(one.result == kind for one in outcomes) for kind in (PASS, FAIL, SKIP)]
        return cls(*counts)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
