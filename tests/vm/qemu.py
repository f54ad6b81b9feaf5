# SPDX-License-Identifier: Apache-2.0
"""A guest: a kernel, a root and a payload under qemu, told what to run over a virtio-serial port.

Emulated in software: KVM's device may be there and still run no kernel, and what is tested is
behaviour, not time. A guest dies with the process that started it, however that ends.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vm.kernels import Kernel

QEMU = "qemu-system-x86_64"
MEMORY = 768
"""MiB of a guest."""

BOOT_SECONDS = 180.0
RUN_SECONDS = 600.0
"""Limits for what hangs: guests on a busy machine take ten times as long as on a quiet one."""
GRACE_SECONDS = 15.0
"""What a guest may take to say that a command was out of time."""

CPU = "max,cx16=off"
"""Without cmpxchg16b: qemu 7.2 now and then returns from it with flags that fault the kernel."""

CONSOLE = "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests"


class GuestError(Exception):
    """A guest does not boot or does not answer; the message names its console's log."""


@dataclass(frozen=True)
class Done:
    """What came of a command in a guest."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Disks:
    """File system images; guests write to none of them."""

    root: Path
    payload: Path


class Guest:
    """A virtual machine; started by the constructor, ended by `close` or the end of the `with`.

    `directory` gets its console's log. `devices` are further arguments of qemu, and `inherit` the
    descriptors that these name. Start it in the thread that lives longest: the guest is killed when
    that ends.
    """

    def __init__(  # noqa: PLR0913
        self, name: str, kernel: Kernel, disks: Disks, directory: Path,
        *, devices: Sequence[str] = (), inherit: Sequence[int] = (), command_line: str = "",
    ) -> None:  # fmt: skip
        self.name = name
        self.kernel = kernel
        self.log = directory / f"{name}.log"
        self.boot_seconds = 0.0
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._pending = b""
        self._begin = time.monotonic()
        self._host, guest = socket.socketpair()
        with guest, (directory / f"{name}.qemu.log").open("wb") as complaints:
            self._process = subprocess.Popen(
                [
                    "setpriv", "--pdeathsig", "KILL", "--", QEMU, "-name", name,
                    "-M", "q35", "-accel", "tcg", "-cpu", CPU, "-m", str(MEMORY),
                    "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                    "-serial", f"file:{self.log}",
                    "-kernel", str(kernel.vmlinux), "-initrd", str(kernel.initrd),
                    "-append", f"{CONSOLE} {command_line}",
                    *_disk(0, disks.root, "snapshot=on"),
                    *_disk(1, kernel.modules, "read-only=on"),
                    *_disk(2, disks.payload, "read-only=on"),
                    "-chardev", f"socket,id=control,fd={guest.fileno()}",
                    "-device", "virtio-serial-pci",
                    "-device", "virtserialport,chardev=control,name=control",
                    "-device", "virtio-rng-pci",
                    *devices,
                ],
                # a snapshot's file, which qemu unlinks if it lives that long
                env={**os.environ, "TMPDIR": str(disks.payload.parent)},
                stdin=subprocess.DEVNULL,
                stdout=complaints,
                stderr=complaints,
                pass_fds=(guest.fileno(), *inherit),
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Until the guest serves. Raises GuestError."""
        message = self._receive(self._begin + BOOT_SECONDS, "boot")
        assert message == {"ready": True}
        self.boot_seconds = time.monotonic() - self._begin

    def run(
        self, command: Sequence[str], *, stdin: str = "", env: Mapping[str, str] | None = None,
        timeout: float = RUN_SECONDS,
    ) -> Done:  # fmt: skip
        """Run a command as root to its end. Raises GuestError if that does not come in time."""
        return self.start(command, stdin=stdin, env=env, timeout=timeout).wait()

    def start(
        self, command: Sequence[str], *, stdin: str = "", env: Mapping[str, str] | None = None,
        timeout: float = RUN_SECONDS,
    ) -> Running:  # fmt: skip
        """Start a command; what it says comes with its end."""
        number = next(self._numbers)
        self._send(
            {
                "id": number,
                "command": list(command),
                "stdin": stdin,
                "env": dict(env or {}),
                "timeout": timeout,
            }
        )
        return Running(self, number, tuple(command), time.monotonic() + timeout)

    def check(self, command: Sequence[str], **options: Any) -> str:
        """`run`, which must succeed; returns what it wrote to stdout. Raises GuestError."""
        done = self.run(command, **options)
        if done.status != 0:
            raise GuestError(
                f"{self.name}: {' '.join(command)} ended with {done.status}:\n"
                f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
        return done.stdout

    def kill(self) -> None:
        """End the guest as by its power switch; who waits for an answer gets a GuestError."""
        self._process.kill()

    def close(self) -> None:
        """End the guest, and what belongs to it here."""
        self.kill()
        self._process.wait()
        self._host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def answer(self, number: int, deadline: float, what: str) -> dict[str, Any]:
        """The answer to a request, while answers to others are kept."""
        while number not in self._answers:
            message = self._receive(deadline, what)
            self._answers[message["id"]] = message
        return self._answers.pop(number)

    def has_answered(self, number: int) -> bool:
        """Whether the answer to a request has come; does not wait for it."""
        while number not in self._answers and select.select([self._host], [], [], 0)[0]:
            message = self._receive(time.monotonic() + GRACE_SECONDS, "finish a line")
            self._answers[message["id"]] = message
        return number in self._answers

    def end(self, number: int) -> None:
        self._send({"end": number})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._host.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self._failed("died") from error

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._host], [], [], left)[0]:
                raise self._failed(f"did not {what} in time")
            data = self._host.recv(1 << 16)
            if not data:
                raise self._failed(f"died and did not {what}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _failed(self, what: str) -> GuestError:
        self.close()
        console = self.log.read_text(errors="replace") if self.log.exists() else ""
        said = console.partition("Call Trace:")[0][-2000:]
        complaint = self.log.with_suffix(".qemu.log").read_text(errors="replace")
        return GuestError(f"{self.name} {what}; its console is {self.log}:\n{complaint}{said}")


@dataclass(frozen=True)
class Running:
    """A command in a guest that may not have ended yet."""

    guest: Guest
    number: int
    command: tuple[str, ...]
    deadline: float

    @property
    def ended(self) -> bool:
        return self.guest.has_answered(self.number)

    def wait(self) -> Done:
        """Its end. Raises GuestError if it was out of time, or the guest is gone."""
        what = f"finish {' '.join(self.command)}"
        reply = self.guest.answer(self.number, self.deadline + GRACE_SECONDS, what)
        if reply["status"] is None:
            raise GuestError(
                f"{self.guest.name} did not {what} in time:\n{reply['stderr'][-2000:]}"
            )
        return Done(reply["status"], reply["stdout"], reply["stderr"])

    def end(self) -> Done:
        """Kill it if it still runs; what it said until then."""
        self.guest.end(self.number)
        return self.wait()


def _disk(number: int, image: Path, options: str) -> tuple[str, ...]:
    drive = f"file={image},format=raw,if=none,id=disk{number},{options}"
    return ("-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}")
