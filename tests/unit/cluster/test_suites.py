# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' own tests: which are run, why others are not, and how their report is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster import e2e, junit, suites
from cluster.junit import Outcome
from cluster.life import Running
from cluster.suites import FOCUS, Skip
from pycni.errors import PycniError
from unit.cluster.clusters import PROGRAMS, drawn

SCTP = Skip("no SCTP here", tests="SCTP")
CLOUD = Skip("no cloud here", says="supported for providers")
SERVICE = "[sig-network] Services should serve a basic endpoint from pods [Conformance]"
REPORT = f"""\
<testsuites><testsuite>
<testcase name="[SynchronizedBeforeSuite]" status="failed" time="1"/>
<testcase name="[It] {SERVICE}" status="passed" time="3.5"/>
<testcase name="[It] [sig-network] DNS should work" status="failed" time="9">
 <failure message="no  &#10;answer"/></testcase>
<testcase name="[It] [sig-network] DNS should be quick" status="timedout" time="9"/>
<testcase name="[It] [sig-network] SCTP should work" status="skipped" time="0">
 <skipped message="skipped"/></testcase>
<testcase name="[It] [sig-network] Load should balance" status="skipped" time="0">
 <skipped message="skipped - Only supported for providers [gce]"/></testcase>
<testcase name="[It] [sig-network] Moon should shine" status="skipped" time="0">
 <skipped message="skipped - not tonight"/></testcase>
<testcase name="[It] [sig-node] Pods should run" status="passed" time="1"/>
</testsuite></testsuites>
"""


@pytest.fixture
def outcomes(tmp_path: Path) -> dict[str, Outcome]:
    report = tmp_path / "junit.xml"
    report.write_text(REPORT)
    found = junit.read(report, FOCUS["all"], [SCTP, CLOUD])
    return {one.name: one for one in found}


def test_only_tests_in_the_focus_count(outcomes: dict[str, Outcome]) -> None:
    assert len(outcomes) == 6
    assert outcomes[SERVICE] == Outcome(SERVICE, "passed", 3.5)


def test_a_failure_is_told_in_one_line(outcomes: dict[str, Outcome]) -> None:
    found = outcomes["[sig-network] DNS should work"]

    assert (found.verdict, found.why) == ("failed", "no answer")


def test_what_ended_otherwise_has_failed(outcomes: dict[str, Outcome]) -> None:
    found = outcomes["[sig-network] DNS should be quick"]

    assert (found.verdict, found.why) == ("failed", "timedout")


def test_a_skip_has_its_reason(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["[sig-network] SCTP should work"].why == SCTP.reason
    assert outcomes["[sig-network] Load should balance"].why == CLOUD.reason


def test_a_skip_for_no_known_reason_has_failed(outcomes: dict[str, Outcome]) -> None:
    found = outcomes["[sig-network] Moon should shine"]

    assert found.verdict == "failed"
    assert "not tonight" in found.why


def test_the_last_line_has_the_sums(outcomes: dict[str, Outcome]) -> None:
    said: list[str] = []

    assert e2e.report(list(outcomes.values()), said.append) == 1
    assert said[-1] == "e2e: 1 passed, 3 failed, 2 skipped"
    assert "skipped 1: no SCTP here" in said


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [([], 1), ([Outcome("a", "passed")], 0), ([Outcome("a", "skipped", why="so")], 1),
     ([Outcome("a", "passed"), Outcome("b", "skipped", why="so")], 0)],
)  # fmt: skip
def test_only_tests_that_ran_are_a_success(outcomes: list[Outcome], status: int) -> None:
    assert e2e.report(outcomes, lambda _: None) == status


def test_every_skip_of_the_file_has_a_reason_and_a_pattern() -> None:
    skips = suites.load()

    assert skips
    for skip in skips:
        assert re.compile(skip.tests or skip.says)
    re.compile(suites.pattern(skips))


@pytest.mark.parametrize("entry", ['reason = "so"', 'reason = ""\ntests = "x"'])
def test_a_skip_that_says_not_what_or_why_is_refused(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "skips.toml"
    file.write_text(f"[[skip]]\n{entry}\n")

    with pytest.raises(PycniError, match="what is skipped, and why"):
        suites.load(file)


def test_what_skips_itself_is_started() -> None:
    assert suites.pattern([SCTP, CLOUD, Skip("so", tests="b")]) == "SCTP|b"


@pytest.mark.parametrize(
    ("focus", "is_run"),
    [("conformance", True), ("services", True), ("all", True), ("cut", True), ("policy", False)],
)
def test_a_focus_has_the_tests_of_its_name(focus: str, is_run: bool) -> None:
    assert bool(re.search(FOCUS[focus], SERVICE)) is is_run


def test_tests_run_as_the_administrator_with_what_was_built() -> None:
    command = list(map(str, e2e.command(Running(drawn(), PROGRAMS), "a", "b", Path("/reports"))))

    assert command[0] == "/programs/ginkgo"
    before, after = command[: command.index("--")], command[command.index("--") :]
    assert before[-1] == "/programs/e2e.test"
    assert "--focus=a" in before
    assert "--skip=b" in before
    assert any(word.endswith("/keys/admin.kubeconfig") for word in after)
    assert "--report-dir=/reports" in after
