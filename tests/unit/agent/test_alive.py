# SPDX-License-Identifier: Apache-2.0
"""The probe of an agent: what it says of one that answers, and of one that does not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pycni.agent import alive
from pycni.cni.rpc import serve_connection


def probe(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-IS", alive.__file__, path], capture_output=True, text=True, check=False
    )


@pytest.fixture
def listener(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "agent.sock"))
        made.listen()
        yield made


def test_an_agent_that_greets_is_alive_and_logs_no_call(
    listener: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        serve_connection(connection, lambda *_: pytest.fail("nobody called"))

    thread = threading.Thread(target=serve)
    thread.start()

    done = probe(tmp_path / "agent.sock")

    thread.join()
    assert (done.returncode, done.stderr) == (0, "")
    assert caplog.records == []


def test_an_agent_that_does_not_run_is_told(tmp_path: Path) -> None:
    done = probe(tmp_path / "agent.sock")

    assert done.returncode == 1
    assert done.stderr.startswith(f"no agent answers at {tmp_path / 'agent.sock'}: ")


def test_an_agent_whose_threads_stand_still_is_not_alive(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "SECONDS", 0.05)

    assert "timed out" in alive.ask(listener.getsockname())


def test_a_connection_that_is_closed_is_no_answer(listener: socket.socket) -> None:
    thread = threading.Thread(target=lambda: listener.accept()[0].close())
    thread.start()

    assert alive.ask(listener.getsockname()) == "the connection was closed"
    thread.join()


def test_it_imports_nothing_but_builtin_modules() -> None:
    done = subprocess.run(
        [sys.executable, "-IS", "-X", "importtime", alive.__file__, "/nowhere"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"socket", "pycni", "json", "re", "ctypes", "selectors"}
