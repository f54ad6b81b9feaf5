# SPDX-License-Identifier: Apache-2.0
"""A run of Kubernetes' own tests, with a machine that only pretends."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster import e2e
from cluster.junit import Outcome
from cluster.life import Running
from pycni.errors import PycniError
from pycni.lab.processes import Kept, start_time
from unit.cluster.clusters import PROGRAMS, drawn

RUNNING = Running(drawn(), PROGRAMS)
REPORT = """<testsuite><testcase name="[It] [sig-network] a [Conformance]" status="passed"/>
</testsuite>"""


class FakeMachine:
    """Runs the tests at once: writes what they would have written."""

    report: str | None = REPORT
    lives = 0.0
    events: list[str]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events = []
        self.end = 0.0

    def log_path(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def start_daemon(self, name: str, command: Sequence[str | Path]) -> None:
        self.events.append(f"start {name}")
        self.end = time.monotonic() + self.lives
        self.log_path(name).write_text("•S•\nthe last words\n")
        where = next(Path(str(word)[13:]) for word in command if "--report-dir=" in str(word))
        if self.report is not None:
            (where / e2e.REPORT).write_text(self.report)

    def stop_daemon(self, name: str) -> None:
        self.events.append(f"stop {name}")

    def daemon(self, _: str) -> Kept:
        alive = time.monotonic() < self.end
        return Kept(os.getpid(), (start_time(os.getpid()) or 0) if alive else -1)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    made = FakeMachine(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(e2e, "Machine", lambda _: made)
    return made


def test_the_outcomes_are_those_of_the_report(machine: FakeMachine, tmp_path: Path) -> None:
    found = e2e.run(RUNNING, "conformance", lambda _: None)

    assert found == [Outcome("[sig-network] a [Conformance]", "passed")]
    assert machine.events == ["start e2e", "stop e2e"]
    assert (tmp_path / "cache/pycni/e2e/conformance-nftables/log").exists()


@pytest.mark.parametrize("report", [None, "<testsuite>"])
def test_without_a_whole_report_the_log_is_told(machine: FakeMachine, report: str | None) -> None:
    machine.report = report

    with pytest.raises(PycniError, match="no report") as error:
        e2e.run(RUNNING, "conformance", lambda _: None)

    assert "the last words" in error.value.details


def test_a_report_of_an_earlier_run_is_not_taken_for_this_ones(machine: FakeMachine) -> None:
    e2e.run(RUNNING, "conformance", lambda _: None)
    machine.report = None

    with pytest.raises(PycniError, match="no report"):
        e2e.run(RUNNING, "conformance", lambda _: None)


def test_progress_is_told_and_an_interruption_ends_the_tests(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.lives = 60.0
    monkeypatch.setattr(e2e, "TELL_SECONDS", -1.0)

    def tell(line: str) -> None:
        if line.endswith("2 tests have ended"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        e2e.run(RUNNING, "conformance", tell)

    assert machine.events == ["start e2e", "stop e2e"]
