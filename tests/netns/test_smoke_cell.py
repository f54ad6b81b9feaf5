"""vagrant/smoke/cell.py: a cell has all it needs, and ends without a trace however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from labs import wait_until

SMOKE = Path(__file__).parents[2] / "vagrant"
sys.path.insert(0, str(SMOKE))

from smoke import leftovers  # noqa: E402
from smoke.__main__ import NAMESPACES  # noqa: E402
from smoke.cell import WRITABLE  # noqa: E402

INSIDE = """
import os, sys, time
from pathlib import Path
from smoke import cell
tree, work = map(Path, sys.argv[1:])
room = cell.build(tree, work)
for name in cell.WRITABLE:
    (room.root / name / "written").touch()
try:
    (room.root / "usr" / "written").touch()
except OSError as error:
    (work / "refused").write_text(error.strerror)
(work / "links").write_text(" ".join(os.listdir(room.root / "sys/class/net")))
(work / "ready").touch()
time.sleep(600)
"""


def test_a_killed_cell_leaves_neither_mounts_nor_processes(tmp_path: Path) -> None:
    tree, work = tmp_path / "tree", tmp_path / "work"
    work.mkdir()
    for name in (*WRITABLE, "dev", "proc", "sys", "usr"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "run" / "kept").touch()
    before = leftovers.take()
    command = [sys.executable, "-c", INSIDE, str(tree), str(work)]
    cell = subprocess.Popen(
        ["unshare", *NAMESPACES, "--net", "--fork", "--kill-child", "--", *command],
        env=dict(os.environ) | {"PYTHONPATH": str(SMOKE)},
    )
    try:
        wait_until(lambda: (work / "ready").exists(), "the cell is built")
    finally:
        cell.kill()
        cell.wait()

    time.sleep(0.1)
    assert leftovers.new_since(before, tmp_path) == []
    assert (work / "refused").read_text() == "Read-only file system"
    assert (work / "links").read_text() == "lo"
    assert (work / "own/run/kept").exists()
    assert not (tree / "run/written").exists()
