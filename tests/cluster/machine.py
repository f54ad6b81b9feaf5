# SPDX-License-Identifier: Apache-2.0
"""A machine: network, mount, UTS and PID namespaces, whose first process takes all others along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.proc import first_child, is_stopped, parent, pid_namespace, words
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.files import make_private_directory, replace_file
from pycni.lab import processes
from pycni.lab.layout import LabNode
from pycni.lab.processes import Kept, start_time

INIT = Path(__file__).with_name("init.py")
NAMESPACES = ("--net", "--mount", "--uts", "--pid")
START_SECONDS = 20.0
END_SECONDS = 10.0

Command = Sequence[str | Path]


class Machine:
    """A handle of one, which may run or not; what is known of its processes is in its directory."""

    def __init__(self, node: LabNode) -> None:
        self.node = node
        self.name = node.name
        self.directory = node.directory

    def start(self, pause: Path) -> None:
        """Start the first process, the program `pause`; the network must be there already."""
        make_private_directory(self.directory)
        (self.directory / "ready").unlink(missing_ok=True)
        outside = processes.start(
            self.node.netns,
            [
                "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
                "--propagation", "private", sys.executable, "-IS", INIT, self.directory, self.name,
                pause,
            ],
            log=self.log_path("init"),
        )  # fmt: skip
        ready = self.directory / "ready"
        until(lambda: ready.exists() or not outside.alive, self._said("init"), START_SECONDS)
        child = first_child(outside.pid)
        if child is None or not ready.exists():
            raise PycniError(
                f"the machine {self.name} does not start",
                details=tail(self.log_path("init")),
                hint="the home directory must be on a file system that overlayfs can write to",
            )
        self._record("init", child, [pause])

    def run(
        self, command: Command, *, timeout: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end inside. Raises PycniError if that fails (with `check`) or takes longer."""
        what = f"{Path(command[0]).name} on {self.name}"
        try:
            done = _run(self.inside(command), timeout)
        except subprocess.TimeoutExpired as error:
            raise PycniError(
                f"{what} did not end in {timeout:g} s", hint=f"see the logs in {self.directory}"
            ) from error
        if check and done.returncode != 0:
            raise PycniError(
                f"{what} failed: {' '.join(map(str, command))}",
                details=(done.stderr or done.stdout).strip()[-1000:],
                hint=f"see the logs in {self.directory}",
            )
        return done

    def start_daemon(
        self, name: str, command: Command, *, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a process of its own session inside; its output is appended to `log_path(name)`."""
        descriptor = os.open(
            self.log_path(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            outside = subprocess.Popen(
                self.inside(command),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
                env=None if env is None else {**os.environ, **env},
            )
        finally:
            os.close(descriptor)
        outside.returncode = 0  # kept on purpose: its machine ends it
        namespace = pid_namespace(self._init)
        until(
            lambda: self._entered(outside.pid, namespace) or start_time(outside.pid) is None,
            self._said(name), START_SECONDS,
        )  # fmt: skip
        child = first_child(outside.pid)
        if child is None:
            raise PycniError(
                f"{name} does not run on {self.name}",
                details=tail(self.log_path(name)),
                hint="mend what its log, the details, complains of",
            )
        self._record(name, child, command)

    def stop_daemon(self, name: str, *, kill: bool = False) -> None:
        """End a daemon by SIGTERM, or by SIGKILL; no error if it does not run."""
        kept = self.daemon(name)
        if kept is not None:
            outside = parent(kept.pid) if kept.alive else None
            processes.stop(kept, kill=kill)
            if outside is not None:
                _signal([outside], signal.SIGCONT)  # if it was stopped with its child: it waits

    def start_again(self, name: str) -> None:
        """Start a daemon that has ended by the command line that it had, as a supervisor does.

        Raises PycniError if it never ran, runs, or does not start.
        """
        record = self._read_record(name)
        if record is None or Kept(record["pid"], record["started"]).alive:
            raise PycniError(
                f"{name} of {self.name} cannot be started again",
                hint="it runs" if record else "start the cluster: python -m cluster up",
            )
        self.start_daemon(name, record["command"])

    def freeze_daemon(self, name: str) -> None:
        """Stop a daemon (SIGSTOP) until `thaw_daemon`; returns when it is stopped.

        Its parent outside, nsenter, stops itself as well.
        """
        frozen, outside = self._pair(name)
        _signal([frozen], signal.SIGSTOP)
        until(lambda: is_stopped(frozen.pid) and is_stopped(outside.pid),
              f"{name} of {self.name} is stopped", START_SECONDS)  # fmt: skip

    def thaw_daemon(self, name: str) -> None:
        """Let a stopped daemon go on; returns when it does. Its parent sends it SIGCONT: a second
        one from here could come after the next SIGSTOP."""
        frozen, outside = self._pair(name)
        _signal([outside], signal.SIGCONT)
        until(lambda: not is_stopped(frozen.pid), f"{name} of {self.name} goes on", START_SECONDS)

    def daemon(self, name: str) -> Kept | None:
        """A daemon, or `init`, as it was started; None if it never was."""
        record = self._read_record(name)
        return None if record is None else Kept(record["pid"], record["started"])

    def require(self, *names: str) -> None:
        """Raises PycniError naming the first daemon that ended."""
        for name in names:
            kept = self.daemon(name)
            if kept is None or not kept.alive:
                raise PycniError(
                    f"{name} of {self.name} has ended",
                    details=tail(self.log_path(name)),
                    hint=f"see its log: {self.log_path(name)}",
                )

    def inside(self, command: Command) -> list[str]:
        """The command line that runs `command` in the machine."""
        # its root and directory, too: a mount namespace alone would give those of the computer
        places = (*NAMESPACES, "--root", "--wd")
        return ["nsenter", "--target", str(self._init), *places, "--", *map(str, command)]

    def path(self, path: str) -> Path:
        """Where this process finds an absolute path of the machine (proc(5), root)."""
        return Path(f"/proc/{self._init}/root{path}")

    def end(self) -> None:
        """End the machine with all its processes and mounts, whatever state it is in.

        Those in its PID namespace go first. Their parents outside (nsenter) take their statuses,
        and only then the kernel lets the first process go (pid_namespaces(7)); a parent may have
        been stopped together with its child.
        """
        own = pid_namespace(os.getpid())
        everybody = list(processes.inhabitants(self.node.netns))
        inner = [one for one in everybody if pid_namespace(one.pid) not in (own, "")]
        outer = [one for one in everybody if one not in inner]
        _signal(inner, signal.SIGKILL)
        deadline = time.monotonic() + END_SECONDS
        while any(one.alive for one in inner) and time.monotonic() < deadline:
            _signal(outer, signal.SIGCONT)
            time.sleep(0.02)
        for one in (*inner, *outer):
            processes.stop(one, kill=True)

    def log_path(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def logs(self) -> dict[str, Path]:
        """Every log by the daemon's name."""
        return {path.stem: path for path in sorted(self.directory.glob("*.log"))}

    @property
    def _init(self) -> int:
        """The first process. Raises PycniError if it does not run."""
        kept = self.daemon("init")
        if kept is None or not kept.alive:
            raise PycniError(
                f"the machine {self.name} does not run",
                hint="take the cluster down, and up again: python -m cluster down",
            )
        return kept.pid

    def _pair(self, name: str) -> tuple[Kept, Kept]:
        """A daemon that runs, and its parent outside. Raises PycniError if it does not run."""
        self.require(name)
        kept = self.daemon(name)
        outside = parent(kept.pid) if kept else None
        assert kept is not None
        assert outside is not None
        return kept, outside

    def _record(self, name: str, pid: int, command: Command) -> None:
        kept = {"pid": pid, "started": start_time(pid) or 0, "command": list(map(str, command))}
        replace_file(self._record_path(name), json.dumps(kept).encode(), durable=False)

    def _read_record(self, name: str) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = json.loads(self._record_path(name).read_bytes())
        except FileNotFoundError:
            return None
        return document

    def _record_path(self, name: str) -> Path:
        return self.directory / f"{name}.pid"

    def _said(self, name: str) -> str:
        return f"{name} starts on {self.name}; its log: {self.log_path(name)}"

    @staticmethod
    def _entered(outside: int, namespace: str) -> bool:
        """Whether nsenter's child is in the machine, and is the program: at first it is nsenter."""
        child = first_child(outside)
        return (
            child is not None
            and pid_namespace(child) == namespace
            and words(child) not in ([], words(outside))
        )


def _run(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """As subprocess.run; after `timeout` seconds nsenter's child is killed, and so ends nsenter."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            os.kill(first_child(process.pid) or process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _signal(those: Iterable[Kept], number: signal.Signals) -> None:
    for one in those:
        if one.alive:
            with suppress(ProcessLookupError):
                os.kill(one.pid, number)


def tail(log: Path, *, characters: int = 1500) -> str:
    """The end of a log; empty if there is none."""
    try:
        return log.read_text(errors="replace").strip()[-characters:]
    except FileNotFoundError:
        return ""
