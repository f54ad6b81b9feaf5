# SPDX-License-Identifier: Apache-2.0
"""The plugin whose first calls fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cluster.sandbox_checks import FAILING

RESULT = {"cniVersion": "1.0.0", "ips": []}


def call(command: str, state: Path) -> subprocess.CompletedProcess[str]:
    config = {"cniVersion": "1.0.0", "prevResult": RESULT, "state": str(state),
              "failures": {"ADD": 2}}  # fmt: skip
    return subprocess.run(
        [sys.executable, "-IS", FAILING], input=json.dumps(config), env={"CNI_COMMAND": command},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_so_many_calls_fail_and_then_none(tmp_path: Path) -> None:
    done = [call("ADD", tmp_path / "state") for _ in range(4)]

    assert [one.returncode for one in done] == [1, 1, 0, 0]
    assert json.loads(done[0].stdout)["msg"] == "this plugin fails"
    assert json.loads(done[2].stdout) == RESULT


def test_calls_of_another_kind_do_not_fail(tmp_path: Path) -> None:
    done = call("DEL", tmp_path / "state")

    assert (done.returncode, done.stdout) == (0, "")
