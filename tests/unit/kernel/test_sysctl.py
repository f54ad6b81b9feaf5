# SPDX-License-Identifier: Apache-2.0
"""Kernel parameters: where they are, what is read and what is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycni.kernel import sysctl

REPORT = "from pycni.kernel import sysctl; print(sysctl.PROC_SYS)"


@pytest.mark.parametrize(
    ("value", "place"), [(None, "/proc/sys"), ("", "/proc/sys"), ("/host/proc/sys",) * 2]
)
def test_a_container_says_where_the_hosts_are(value: str | None, place: str) -> None:
    environment = {key: text for key, text in os.environ.items() if key != sysctl.PLACE}
    if value is not None:
        environment[sysctl.PLACE] = value

    done = subprocess.run(
        [sys.executable, "-c", REPORT], capture_output=True, text=True, check=True, env=environment
    )

    assert done.stdout.strip() == place


def test_parameters_there_are_read_named_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysctl, "PROC_SYS", tmp_path)
    (tmp_path / "net/ipv4/conf/eth0.1").mkdir(parents=True)
    parameter = tmp_path / "net/ipv4/conf/eth0.1/forwarding"
    parameter.write_text("0\n")
    name = "net/ipv4/conf/eth0.1/forwarding"

    assert sysctl.names("net/ipv4/conf/*/forwarding") == [name]
    assert sysctl.write(name, "1") == "0"
    assert sysctl.read(name) == "1"
    assert sysctl.write(name, "1") is None
    assert sysctl.write("net/ipv6/none", "1") is None
