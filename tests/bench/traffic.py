# SPDX-License-Identifier: Apache-2.0
"""Runs the traffic between the ends of a path: traffic.c of our own, and iperf3 for TCP streams.

Debian has no netperf (its licence is not free), and sockperf prints text only. traffic.c does what
netperf's TCP_RR, TCP_CRR and UDP_STREAM do, and tells its own CPU time, which on a machine that
others use varies much less than rates do.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from bench.paths import Path
from loader.clang import find_clang
from pycni.lab import processes
from pycni.lab.topology import NETNS_DIR

SOURCE = FilePath(__file__).with_suffix(".c")
IPERF = "iperf3"
TIMEOUT = 30.0
READY_TIMEOUT = 5.0
"""Seconds that an iperf3 server may take to listen."""

CPUS = sorted(os.sched_getaffinity(0))
CLIENT_CPU = CPUS[0]
SERVER_CPU = CPUS[-1]

Document = dict[str, Any]


class TrafficFailed(Exception):
    """Traffic that was to be measured did not flow; what was measured means nothing."""


@dataclass(frozen=True)
class Traffic:
    """The compiled traffic.c."""

    program: FilePath

    def run(
        self, mode: str, path: Path, *, seconds: float, size: int = 1, cpus: Sequence[int]
    ) -> Document:
        """One run in a mode of traffic.c; what it printed. Raises TrafficFailed with its words."""
        words = (
            *(self.program, mode, NETNS_DIR / path.client, NETNS_DIR / path.server, path.address),
            *(seconds, size, *cpus),
        )
        return _json_of([str(word) for word in words], path)


@contextmanager
def compiled(directory: FilePath) -> Iterator[Traffic]:
    """traffic.c compiled into `directory`."""
    program = directory / "traffic"
    command: list[str | FilePath] = [*_native_clang(), "-o", program, SOURCE]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise TrafficFailed(f"{SOURCE.name} does not compile: {done.stderr.decode()}")
    yield Traffic(program)


@contextmanager
def iperf_servers(paths: Sequence[Path], directory: FilePath) -> Iterator[None]:
    """An iperf3 server at the end of each path."""
    with ExitStack() as undo:
        for number, path in enumerate(paths):
            log = directory / f"iperf{number}.log"
            server = processes.start(path.server, [IPERF, "--server"], log=log)
            undo.callback(processes.stop, server)
        yield


def stream(path: Path, *, streams: int, amount: tuple[str, str]) -> Document:
    """A run of iperf3; `amount` is its option for how long or how much. Its JSON."""
    command = [
        *(IPERF, "--client", path.address, "--json", "--parallel", str(streams), *amount),
        *("--affinity", f"{CLIENT_CPU},{SERVER_CPU}"),
    ]
    deadline = time.monotonic() + READY_TIMEOUT
    while True:
        try:
            return _json_of(processes.inside(path.client, command), path)
        except TrafficFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _json_of(command: Sequence[str], path: Path) -> Document:
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise TrafficFailed(f"{path.name}: {command[1]} did not end in {TIMEOUT:g} s") from None
    document = json.loads(done.stdout) if done.stdout else {}
    if done.returncode or "error" in document:
        said = document.get("error") or done.stderr.decode(errors="replace").strip()
        raise TrafficFailed(f"{path.name}: {' '.join(command)}: {said}")
    return document


def _native_clang() -> list[str]:
    return [find_clang().path, "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
