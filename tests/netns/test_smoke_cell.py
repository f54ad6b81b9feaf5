# SPDX-License-Identifier: Apache-2.0
"""vagrant/smoke: a cell has all it needs, and ends without a trace however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smoke import leftovers, namespaces
from smoke.cell import WRITABLE
from support.waiting import wait_until

SMOKE = Path(__file__).parents[2] / "vagrant"
ENVIRONMENT = dict(os.environ) | {"PYTHONPATH": str(SMOKE)}

OUTSIDE = """
import signal, sys
from smoke import namespaces
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
namespaces.run(sys.executable, "-c", *sys.argv[1:], network=False)
"""

INSIDE = """
import os, subprocess, sys, time
from pathlib import Path
from smoke import cell, namespaces
namespaces.adopt()
tree, work = map(Path, sys.argv[1:])
room = cell.build(tree, work)
for name in cell.WRITABLE:
    (room.root / name / "written").touch()
try:
    (room.root / "usr" / "written").touch()
except OSError as error:
    (work / "refused").write_text(error.strerror)
(work / "links").write_text(" ".join(os.listdir(room.root / "sys/class/net")))
subprocess.Popen(["setsid", "sleep", "600"], cwd=work)
(work / "ready").touch()
time.sleep(600)
"""

ORPHAN = """
import os, subprocess, time
from pathlib import Path
from smoke import namespaces
namespaces.adopt()
orphan = subprocess.check_output(["sh", "-c", "sleep 600 >&- & echo $!"], text=True).strip()
os.kill(int(orphan), 9)
deadline = time.monotonic() + 10
while Path("/proc", orphan).exists() and time.monotonic() < deadline:
    time.sleep(0.01)
raise SystemExit(7 if not Path("/proc", orphan).exists() else 1)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_cell_whose_command_is_ended_leaves_nothing(
    tmp_path: Path, ending: signal.Signals
) -> None:
    tree, work = tmp_path / "tree", tmp_path / "work"
    work.mkdir()
    for name in (*WRITABLE, "dev", "proc", "sys", "usr"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "run" / "kept").touch()
    before = leftovers.take()
    command = subprocess.Popen(
        [sys.executable, "-c", OUTSIDE, INSIDE, tree, work],
        env=ENVIRONMENT, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: (work / "ready").exists(), "the cell is built")
        seen = leftovers.new_since(before, tmp_path)
        command.send_signal(ending)
        status = command.wait(timeout=30)
    finally:
        command.kill()
        command.wait()
        if ending == signal.SIGKILL:  # which lets nobody wait
            wait_until(lambda: not leftovers.new_since(before, tmp_path), "the cell has ended")

    assert status == -ending
    assert [one.split()[0] for one in seen] == ["process"]
    assert leftovers.new_since(before, tmp_path) == []
    assert (work / "refused").read_text() == "Read-only file system"
    assert (work / "links").read_text() == "lo"
    assert (work / "own/run/kept").exists()
    assert not (tree / "run/written").exists()


def test_processes_without_parents_do_not_stay_as_zombies() -> None:
    command = [sys.executable, "-c", ORPHAN]

    assert namespaces.run(*command, network=False, env=ENVIRONMENT) == 7


def test_a_second_smoke_at_once_is_refused(tmp_path: Path) -> None:
    holder = """
import time
from pathlib import Path
import sys
from smoke.__main__ import CACHE, only_one
CACHE.mkdir(parents=True)
with only_one(CACHE):
    print("held", flush=True)
    time.sleep(600)
"""
    env = ENVIRONMENT | {"XDG_CACHE_HOME": str(tmp_path)}
    first = subprocess.Popen(
        [sys.executable, "-c", holder], env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        second = subprocess.run(
            [sys.executable, "-m", "smoke", "up"], env=env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    finally:
        first.kill()
        first.communicate()

    assert second.returncode == 1
    assert f"runs already, as process {first.pid}: let it end" in second.stderr
    assert [file.name for file in (tmp_path / "pycni" / "box").iterdir()] == ["lock"]
