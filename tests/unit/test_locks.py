# SPDX-License-Identifier: Apache-2.0
"""Locks between processes: waiting, giving up, and holders that are killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pycni.errors import FileError, TryAgain
from pycni.locks import address_lock, agent_lock, attachment_lock, events_lock, network_lock

POD_ONE = "cluster/pod-one/eth0"
POD_TWO = "cluster/pod-two/eth0"

HOLD_NETWORK_LOCK = """
import sys, time
from pathlib import Path
from pycni.locks import network_lock
with network_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_operation_on_an_attachment_is_told_who_holds_it(tmp_path: Path) -> None:
    with (
        attachment_lock(tmp_path, POD_ONE),
        pytest.raises(TryAgain) as caught,
        attachment_lock(tmp_path, POD_ONE, timeout=0),
    ):
        pass

    assert caught.value.code == 11
    assert caught.value.message == f"the attachment {POD_ONE} is locked by process {os.getpid()}"
    assert caught.value.hint


def test_other_attachments_and_the_network_are_not_locked(tmp_path: Path) -> None:
    with (
        attachment_lock(tmp_path, POD_ONE, timeout=0),
        attachment_lock(tmp_path, POD_TWO, timeout=0),
        network_lock(tmp_path, timeout=0),
    ):
        pass


def test_no_two_attachments_share_a_lock(tmp_path: Path) -> None:
    with ExitStack() as held:
        for number in range(300):
            held.enter_context(attachment_lock(tmp_path, f"pod-{number}", timeout=0))
            held.enter_context(address_lock(tmp_path, IPv4Address(number), timeout=0))


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    with attachment_lock(tmp_path, POD_ONE), address_lock(tmp_path, IPv4Address(1)):
        assert len(list((tmp_path / "locks").iterdir())) == 2

    assert list((tmp_path / "locks").iterdir()) == []


def test_waiters_never_hold_one_lock_together(tmp_path: Path) -> None:
    holders, most = [], []

    def work() -> None:
        for _ in range(30):
            with attachment_lock(tmp_path, POD_ONE, timeout=30):
                holders.append(1)
                most.append(len(holders))
                time.sleep(0)
                holders.pop()

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert most == [1] * 240


def test_a_second_reader_of_events_is_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        events_lock(tmp_path),
        network_lock(tmp_path, timeout=0),
        pytest.raises(TryAgain, match=f"events is locked by process {os.getpid()}"),
        events_lock(tmp_path),
    ):
        pass


def test_a_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with network_lock(tmp_path, timeout=0):
            pass


def test_a_lock_is_released_by_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), network_lock(tmp_path):
        raise KeyError

    with network_lock(tmp_path, timeout=0):
        pass


def test_a_waiter_gets_the_lock_when_its_holder_is_done(tmp_path: Path) -> None:
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with network_lock(tmp_path):
            locked.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(10)
    threading.Timer(0.05, done.set).start()

    with network_lock(tmp_path, timeout=10):
        assert done.is_set()

    holder.join()


def test_a_waiter_gives_up_at_its_deadline(tmp_path: Path) -> None:
    began = time.monotonic()

    with (
        network_lock(tmp_path),
        pytest.raises(TryAgain, match="the node's network is locked by process"),
        network_lock(tmp_path, timeout=0.05),
    ):
        pass

    assert 0.05 <= time.monotonic() - began < 5


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_NETWORK_LOCK, str(tmp_path)]
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with (
            pytest.raises(TryAgain, match=f"is locked by process {holder.pid}"),
            network_lock(tmp_path, timeout=0),
        ):
            pass
        holder.kill()

    with network_lock(tmp_path, timeout=0):
        pass


def test_a_child_that_inherits_the_lock_keeps_it_until_it_ends(tmp_path: Path) -> None:
    with network_lock(tmp_path) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    try:
        with (
            pytest.raises(TryAgain, match="is locked by another process"),
            network_lock(tmp_path, timeout=0),
        ):
            pass
    finally:
        child.kill()
        child.wait()

    with network_lock(tmp_path, timeout=0):
        pass


def test_a_dead_holder_whose_child_lives_is_named_as_such(tmp_path: Path) -> None:
    with network_lock(tmp_path):
        no_such_pid = str(2**31 - 1)
        (tmp_path / "locks" / "network.lock").write_text(no_such_pid)

        with (
            pytest.raises(TryAgain, match=f"a child of process {no_such_pid}, which is gone"),
            network_lock(tmp_path, timeout=0),
        ):
            pass


def test_other_children_do_not_inherit_a_lock(tmp_path: Path) -> None:
    with network_lock(tmp_path) as descriptor:
        assert not os.get_inheritable(descriptor)


def test_a_key_may_be_longer_than_a_file_name(tmp_path: Path) -> None:
    with attachment_lock(tmp_path, "x" * 5000, timeout=0):
        pass


def test_lock_files_are_private(tmp_path: Path) -> None:
    with attachment_lock(tmp_path, POD_ONE), network_lock(tmp_path):
        modes = [stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "locks").iterdir()]

    assert modes == [0o600, 0o600]


def test_a_lock_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "locks" / "network.lock").mkdir(parents=True)
    (tmp_path / "locks").chmod(0o700)

    with pytest.raises(FileError, match=r"network\.lock cannot be opened"), network_lock(tmp_path):
        pass


def test_a_full_file_system_does_not_fail_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", disk_full)

    with (
        network_lock(tmp_path),
        pytest.raises(TryAgain, match="is locked by another process"),
        network_lock(tmp_path, timeout=0),
    ):
        pass


def test_the_run_directory_is_made_private(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    with agent_lock(run_dir):
        assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
