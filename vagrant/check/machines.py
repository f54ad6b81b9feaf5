# SPDX-License-Identifier: Apache-2.0
"""The lab's machines, over the connections that `vagrant ssh-config` describes."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAB = Path(__file__).resolve().parents[1]
PYTHON = "/opt/pycni/bin/python3"
GUEST = "/pycni/vagrant/check/guest.py"
PEER = "/pycni/pycni/lab/peer.py"
LIBRARIES = "/opt/pycni-lab"
"""In the machines: what guest.py needs beside pycni."""

PATIENCE = 300
"""Seconds for a command; a machine may be emulated, and take ten times as long as another."""
BOOT_PATIENCE = 900

OPTIONS = ("ControlMaster=auto", "ControlPersist=300", "ServerAliveInterval=15")


class Failed(Exception):
    """A command in a machine did not succeed; the message is what it said."""


@dataclass(frozen=True)
class Machine:
    """One machine; `directory` holds the way to it and the master connection's socket."""

    name: str
    directory: Path

    def run(self, command: str, *, timeout: float = PATIENCE) -> str:
        """A shell command, as root; what it printed. Raises Failed."""
        try:
            done = subprocess.run(
                self._ssh(command), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.name}: {command}: no end after {timeout:g} s") from error
        if done.returncode != 0:
            raise Failed(f"{self.name}: {command}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def guest(self, *arguments: object) -> Any:
        """A verb of guest.py, and the document it prints."""
        return json.loads(self.run(_guest(*arguments)))

    def peer(self, netns: str, *arguments: object) -> Any:
        """A verb of pycni/lab/peer.py in a pod's namespace, and the document it prints."""
        return json.loads(self.run(_peer(netns, *arguments)))

    @contextmanager
    def peer_running(self, netns: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """The same while it goes on, with pipes; ended at the end of the block."""
        command = self._ssh(_peer(netns, *arguments))
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def reboot(self) -> None:
        """Boot anew, and wait until systemd has started everything, or failed to."""
        before = self._boot_id()
        self.run("systemctl reboot || true")
        self.disconnect()
        deadline = time.monotonic() + BOOT_PATIENCE
        while True:
            try:
                if self._boot_id() != before:
                    break
            except Failed:
                if time.monotonic() > deadline:
                    raise
            time.sleep(2)
        self.run("systemctl is-system-running --wait || true", timeout=BOOT_PATIENCE)

    def disconnect(self) -> None:
        subprocess.run(
            [*self._options(), "-O", "exit", self.name], capture_output=True, check=False
        )

    def _boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id", timeout=30)

    def _ssh(self, command: str) -> list[str]:
        return [*self._options(), self.name, "--", f"sudo bash -c {shlex.quote(command)}"]

    def _options(self) -> list[str]:
        options = [f"-o{option}" for option in (*OPTIONS, f"ControlPath={self.directory}/%n")]
        return ["ssh", "-F", str(self.directory / "config"), *options]


def find(directory: Path, *names: str) -> list[Machine]:
    """The running machines of these names. Raises Failed if there is none of one."""
    done = subprocess.run(
        ["vagrant", "ssh-config", *names], cwd=LAB, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failed(f"vagrant ssh-config: {done.stderr.strip()}; `vagrant up` first")
    (directory / "config").write_text(done.stdout)
    return [Machine(name, directory) for name in names]


def _guest(*arguments: object) -> str:
    words = (PYTHON, GUEST, *arguments)
    return f"PYTHONPATH={LIBRARIES} {shlex.join(map(str, words))}"


def _peer(netns: str, *arguments: object) -> str:
    words = ("nsenter", f"--net={netns}", PYTHON, "-IS", PEER, *arguments)
    return shlex.join(map(str, words))
