# SPDX-License-Identifier: Apache-2.0
"""Who may run which test: those in ROOT_DIRECTORIES need root and what is checked here.

A skip says what is missing. With CI=true a skip is a failure: a machine that cannot run the tests
has not shown that they pass.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from support import worker

hypothesis.settings.register_profile("no timer", deadline=None)
hypothesis.settings.load_profile("no timer")
"""An example takes long on a busy machine, which says nothing."""

ROOT_DIRECTORIES = ("bpf", "netns", "runtimes", "conformance", "vm", "image")

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""Bits of capabilities(7), from linux/capability.h."""

CI = os.environ.get("CI", "").lower() in ("true", "1")

ORDER = ("vm", "kube", "chaos", "fuzz", "unit", "bpf", "conformance", "image", "runtimes", "netns")
"""Of directories. First what takes longest, which is emulated and leaves little of the CPU, and
beside it, in other workers of pytest-xdist, what measures no time; last the many short files."""


def pytest_configure(config: pytest.Config) -> None:
    # a shell's "&" has SIGINT ignored, and so would the programs that tests end by it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid() != 0 or _lacking_capabilities():
        return
    if hasattr(config, "workerinput"):
        worker.leave_the_machine()
    elif config.getoption("numprocesses", None):
        stack = ExitStack()
        stack.enter_context(worker.private_directories())
        config.add_cleanup(stack.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _directory(item) in ROOT_DIRECTORIES:
            item.add_marker(pytest.mark.root)
    items.sort(key=lambda item: ORDER.index(_directory(item)))


def _directory(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is not None:
        lacking = missing()
        if lacking:
            pytest.skip(f"missing: {', '.join(lacking)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    return _unforgiving(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    return _unforgiving(report)


@cache
def missing() -> tuple[str, ...]:
    """What this machine lacks for the tests that need root."""
    if os.geteuid() != 0:
        return ("root",)
    lacking = _lacking_capabilities()
    if shutil.which("nsenter") is None:
        lacking.append("nsenter (apt install util-linux)")
    if not _is_installed():
        lacking.append(f"pycni, installed for {sys.executable} (make test does it)")
    return tuple(lacking)


def _lacking_capabilities() -> list[str]:
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]


def _is_installed() -> bool:
    """As the plugin without an agent finds it: not by PYTHONPATH or the current directory."""
    command = [sys.executable, "-I", "-c", "import pycni"]
    return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0


def _unforgiving(report: Any) -> Any:
    if CI and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = f"with CI=true a skip is a failure: {reason}"
    return report
