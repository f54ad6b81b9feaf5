# SPDX-License-Identifier: Apache-2.0
"""Processes inside a lab's namespaces: run to the end, or kept and ended by pid.

Only the lab, the compiler and the delegation to IPAM plugins start programs. The lab does what an
operator and a container runtime do. A kept process is known by its pid and its start time, so a
signal never reaches another process that got the same pid later.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pycni.errors import PycniError
from pycni.lab.topology import NETNS_DIR

STOP_TIMEOUT = 15.0
"""Seconds between SIGTERM and SIGKILL: an agent may have setups under way, one behind the other."""


@dataclass(frozen=True)
class Kept:
    """A process that outlives the call that started it."""

    pid: int
    started: int
    """Start time in clock ticks since boot (proc(5), stat, field 22)."""

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def inside(netns: str, command: Sequence[str | Path]) -> list[str]:
    """The command line that runs `command` in a named namespace; only the network changes."""
    return ["nsenter", f"--net={NETNS_DIR / netns}", "--", *map(str, command)]


def run(
    netns: str,
    command: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end and return status, stdout and stderr.

    Raises PycniError if that takes more than `timeout` seconds.
    """
    try:
        return subprocess.run(
            inside(netns, command),
            input=stdin,
            env=None if env is None else dict(env),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PycniError(
            f"{Path(command[0]).name} in {netns} did not end in {timeout:g} s",
            details=" ".join(map(str, command)),
            hint="see what it waits for; on a machine with other work, try again",
        ) from error


def start(netns: str, command: Sequence[str | Path], *, log: Path) -> Kept:
    """Start a process of its own session, its output appended to `log` (mode 0600)."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            inside(netns, command),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    process.returncode = 0  # kept on purpose: `stop` reaps it, or init does
    return Kept(process.pid, start_time(process.pid) or 0)


def stop(kept: Kept, *, kill: bool = False) -> None:
    """End a process: SIGTERM and, if it does not go, SIGKILL; or SIGKILL at once."""
    for number in (signal.SIGKILL,) if kill else (signal.SIGTERM, signal.SIGKILL):
        if not kept.alive:
            break
        os.kill(kept.pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT
        while kept.alive and time.monotonic() < deadline:
            _reap(kept.pid)
            time.sleep(0.01)
    _reap(kept.pid)


def inhabitants(netns: str) -> Iterator[Kept]:
    """The processes inside a named namespace; none if there is no such namespace."""
    with suppress(OSError):
        namespace = (NETNS_DIR / netns).stat()
        for directory in Path("/proc").glob("[0-9]*"):
            pid = int(directory.name)
            with suppress(OSError):
                if os.path.samestat((directory / "ns/net").stat(), namespace):
                    yield Kept(pid, start_time(pid) or 0)


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks; None if there is none, or it has ended unreaped.

    The first thread may have ended before others, which still hold its files.
    """
    directory = Path(f"/proc/{pid}")
    try:
        text = (directory / "stat").read_text()
        threads = len(os.listdir(directory / "task"))
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] == "Z" and threads == 1 else int(fields[19])


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
