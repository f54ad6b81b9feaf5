# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes' own tests have found, from the report that they write (JUnit's XML)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from cluster import suites
from cluster.suites import Skip

TEST = "[It] "
"""Before the name of a test; others are what ginkgo does before and after all."""
WORDS = 500
"""Characters of why a test failed."""

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """Of a test; `why` it failed, or was skipped."""

    name: str
    verdict: Verdict
    seconds: float = 0.0
    why: str = ""


def read(report: Path, focus: str, skips: Iterable[Skip]) -> list[Outcome]:
    """The outcomes of the tests in `focus`. Raises OSError or ElementTree.ParseError.

    A test that was skipped without a reason in `skips` has failed.
    """
    known = list(skips)
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [
        outcome(case, known)
        for case in cases
        if case.get("name", "").startswith(TEST) and re.search(focus, case.get("name", ""))
    ]


def outcome(case: ElementTree.Element, skips: list[Skip]) -> Outcome:
    """Of one test's element."""
    name = case.get("name", "").removeprefix(TEST)
    status, seconds = case.get("status", ""), float(case.get("time", "0"))
    if status == "passed":
        return Outcome(name, "passed", seconds)
    if status not in ("skipped", "pending"):
        return Outcome(name, "failed", seconds, _said(case, "failure", "error") or status)
    words = _said(case, "skipped")
    reason = suites.reason(skips, test=name, words=words)
    if reason is None:
        return Outcome(
            name, "failed", seconds, f"skipped, and {suites.FILE.name} has no reason: {words}"
        )
    return Outcome(name, "skipped", seconds, reason)


def _said(case: ElementTree.Element, *kinds: str) -> str:
    for kind in kinds:
        found = case.find(kind)
        if found is not None:
            return " ".join((found.get("message") or found.text or "").split())[:WORDS]
    return ""
