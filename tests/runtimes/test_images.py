# SPDX-License-Identifier: Apache-2.0
"""tests/runtimes/images.py: the program of a pod's sandbox."""

import os
import signal
import subprocess
from pathlib import Path

from runtimes.images import sleeping_program
from support.waiting import wait_until


def test_a_sandbox_ends_when_its_machine_shuts_down(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(sleeping_program())
    program.chmod(0o755)
    outside = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", program])
    children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
    try:
        wait_until(lambda: _runs(children, program), "the sandbox sleeps")
        os.kill(int(children.read_text()), signal.SIGTERM)

        assert outside.wait(timeout=10) == 0
    finally:
        outside.kill()
        outside.wait()


def _runs(children: Path, program: Path) -> bool:
    first = children.read_text()
    if not first:
        return False
    process = Path("/proc", first.strip())
    state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    return state == "S" and (process / "exe").readlink() == program
