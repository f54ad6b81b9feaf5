# SPDX-License-Identifier: Apache-2.0
"""The runner itself: whatever happens to a guest is said, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vm import qemu
from vm.kernels import Kernel
from vm.qemu import Disks, Guest, GuestError

TESTS = Path(__file__).parents[1]
MARK = "PYCNI_VM_TEST"
INTERRUPT_SECONDS = 60.0


@pytest.fixture
def guest(kernel: Kernel, disks: Disks, tmp_path: Path) -> Iterator[Guest]:
    with Guest("lonely", kernel, disks, tmp_path) as made:
        made.wait_until_ready()
        yield made


@pytest.fixture(scope="module")
def steady(
    kernel: Kernel, disks: Disks, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """One for all tests that do not harm it."""
    with Guest("steady", kernel, disks, tmp_path_factory.mktemp("steady")) as made:
        made.wait_until_ready()
        yield made


def processes(mark: str) -> list[int]:
    """Those that inherited the mark in their environment, as NAME=VALUE."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
        except OSError:
            continue
    return found


def guests(mark: str) -> list[int]:
    """Those of `processes` that are qemu's."""
    found = []
    for pid in processes(mark):
        with suppress(OSError):
            if Path(f"/proc/{pid}/exe").readlink().name == qemu.QEMU:
                found.append(pid)
    return found


def test_a_guest_does_what_it_is_told(steady: Guest) -> None:
    done = steady.run(["sh", "-c", 'cat; echo "$WORD" >&2; exit 3'], stdin="in", env={"WORD": "w"})

    assert (done.status, done.stdout, done.stderr) == (3, "in", "w\n")
    assert steady.check(["uname", "-r"]).strip() == steady.kernel.release
    with pytest.raises(GuestError, match="false ended with 1"):
        steady.check(["false"])
    assert steady.run(["no-such-program"]).status == 127


def test_a_command_that_hangs_is_ended_and_the_guest_goes_on(steady: Guest) -> None:
    with pytest.raises(GuestError, match="did not finish sleep 1000 in time"):
        steady.run(["sleep", "1000"], timeout=1)

    assert steady.run(["pgrep", "--exact", "sleep"]).status == 1
    running = steady.start(["sleep", "1000"])
    assert not running.ended
    assert running.end().status == -signal.SIGKILL


def test_a_guest_that_hangs_is_ended_and_its_log_named(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "GRACE_SECONDS", 1.0)
    os.kill(guest.pid, signal.SIGSTOP)

    with pytest.raises(GuestError, match="did not finish true in time") as error:
        guest.run(["true"], timeout=1)

    assert str(guest.log) in str(error.value)
    assert not Path(f"/proc/{guest.pid}").exists()


def test_a_guest_that_does_not_boot_is_said_with_its_last_words(
    kernel: Kernel, disks: Disks, tmp_path: Path
) -> None:
    with (
        Guest("broken", kernel, disks, tmp_path, command_line="rdinit=/none panic=-1") as made,
        pytest.raises(GuestError, match="did not boot") as error,
    ):
        made.wait_until_ready()

    assert str(made.log) in str(error.value)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    value = str(tmp_path)
    command = [sys.executable, "-m", "vm", "--kernel", "6.1", "--step", "load"]
    environment = os.environ | {MARK: value, "TMPDIR": value}
    with subprocess.Popen(command, cwd=TESTS, env=environment, stdout=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + INTERRUPT_SECONDS
        while len(guests(f"{MARK}={value}")) < 2:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)

        run.send_signal(signal.SIGINT)
        run.wait(INTERRUPT_SECONDS)

    assert run.returncode != 0
    assert processes(f"{MARK}={value}") == []
    assert list(tmp_path.iterdir()) == []
