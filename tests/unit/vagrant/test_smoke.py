# SPDX-License-Identifier: Apache-2.0
"""vagrant/smoke: commands that fail, and what is seen of what they leave."""

import subprocess
from pathlib import Path

import pytest

from smoke import leftovers
from smoke.commands import Failed, run


def test_a_command_that_fails_says_what_it_said() -> None:
    with pytest.raises(Failed, match=r"ls /nowhere ended with 2: .*No such file"):
        run("ls", "/nowhere")


def test_a_command_with_a_log_points_to_it(tmp_path: Path) -> None:
    log = tmp_path / "log"

    with pytest.raises(Failed, match=f"see {log}"):
        run("ls", "/nowhere", log=log)

    assert "$ ls /nowhere" in log.read_text()
    assert "No such file" in log.read_text()


def test_a_process_that_outlives_a_run_is_seen(tmp_path: Path) -> None:
    before = leftovers.take()
    process = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        assert leftovers.new_since(before, tmp_path) == [f"process {process.pid}"]
    finally:
        process.kill()
        process.wait()

    assert leftovers.new_since(before, tmp_path) == []


def test_files_of_a_libvirt_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PLACES", (str(tmp_path), str(tmp_path / "absent")))
    before = leftovers.take()

    (tmp_path / "socket").touch()

    assert leftovers.new_since(before, tmp_path) == [f"file {tmp_path}/socket"]
