# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' own tests, against a cluster: `e2e.test`, run by ginkgo on the control plane.

There it reaches nodes, pods and the API, as its authors want it to.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from cluster import junit, suites
from cluster.commands import Command
from cluster.junit import Outcome
from cluster.life import Running
from cluster.machine import Machine, tail
from cluster.suites import FOCUS
from pycni.errors import PycniError
from vm import cache

PROCESSES = 4
LIMIT_MINUTES = 90
TELL_SECONDS = 20.0
REPORT = "junit_01.xml"
DAEMON = "e2e"

Tell = Callable[[str], None]


def run(running: Running, focus: str, tell: Tell) -> list[Outcome]:
    """The outcome of each test in the focus of that name. Raises PycniError."""
    where = cache.directory("e2e") / f"{focus}-{running.cluster.kube_proxy}"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir()
    skips = suites.load()
    machine = Machine(running.cluster.control)
    machine.log_path(DAEMON).unlink(missing_ok=True)
    tell(f"Kubernetes' own tests, {focus}; the log: {machine.log_path(DAEMON)}")
    machine.start_daemon(DAEMON, command(running, FOCUS[focus], suites.pattern(skips), where))
    try:
        _wait(machine, tell)
    finally:
        machine.stop_daemon(DAEMON)
    shutil.copy(machine.log_path(DAEMON), where / "log")
    try:
        return junit.read(where / REPORT, FOCUS[focus], skips)
    except (OSError, ElementTree.ParseError) as error:
        raise PycniError(
            "Kubernetes' own tests left no report", details=tail(where / "log"),
            hint=f"see the log: {where / 'log'}",
        ) from error  # fmt: skip


def command(running: Running, focus: str, skip: str, where: Path) -> Command:
    """ginkgo's command line."""
    programs, cluster = running.programs, running.cluster
    return [
        programs / "ginkgo",
        f"--procs={PROCESSES}",
        "--no-color",
        f"--timeout={LIMIT_MINUTES}m",
        f"--focus={focus}",
        f"--skip={skip}",
        programs / "e2e.test",
        "--",
        f"--kubeconfig={cluster.keys}/admin.kubeconfig",
        "--provider=skeleton",
        f"--kubectl-path={programs}/kubectl",
        f"--report-dir={where}",
        f"--e2e-output-dir={where}",
        f"--num-nodes={cluster.nodes}",
        "--disable-log-dump=true",
        "--delete-namespace-on-failure=true",
        "--node-schedulable-timeout=2m",
    ]


def report(outcomes: list[Outcome], say: Tell) -> int:
    """Tell what failed and what was skipped, and the sums; returns the exit status."""
    count = {verdict: sum(one.verdict == verdict for one in outcomes)
             for verdict in ("passed", "failed", "skipped")}  # fmt: skip
    for one in outcomes:
        if one.verdict == "failed":
            say(f"FAILED  {one.name} ({one.seconds:.0f} s): {one.why}")
    for reason in sorted({one.why for one in outcomes if one.verdict == "skipped"}):
        skipped = sum(one.why == reason for one in outcomes if one.verdict == "skipped")
        say(f"skipped {skipped}: {reason}")
    say(f"e2e: {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] or not count["passed"] else 0


def _wait(machine: Machine, tell: Tell) -> None:
    """Until the tests have ended, with a line at times of how many did."""
    begun = told = time.monotonic()
    kept = machine.daemon(DAEMON)
    while kept is not None and kept.alive:
        time.sleep(0.2)
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            ended = machine.log_path(DAEMON).read_text(errors="replace").count("•")
            tell(f"{told - begun:6.1f} s  {ended} tests have ended")
