# SPDX-License-Identifier: Apache-2.0
"""pycni/bgp/bird.py: the control socket, and whoever else may answer there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pycni.bgp import bird
from pycni.bgp.bird import Bird, Line
from pycni.errors import BirdError

GREETING = "0001 BIRD 2.0.12 ready.\n"


@contextmanager
def speaking(path: Path, *answers: str) -> Iterator[list[str]]:
    """A BIRD that says this, one answer after the other, then ends; yields what it heard."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)  # nobody may come

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for number, answer in enumerate(answers):
                    if number:
                        heard.append(connection.recv(1000).decode())
                    connection.sendall(answer.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield heard
        thread.join()


def test_an_answer_ends_with_a_blank_behind_its_code(tmp_path):
    path = tmp_path / "bird.ctl"
    said = "1007-Table master4:\n 10.0.0.0/8 unicast\n1008-\tType: BGP\n0000 \n"

    with speaking(path, GREETING, said) as heard, Bird(path) as found:
        answer = found.ask("show route all")

    assert heard == ["show route all\n"]
    assert answer == [
        Line(1007, "Table master4:"), Line(1007, "10.0.0.0/8 unicast"),
        Line(1008, "\tType: BGP"), Line(0, ""),
    ]  # fmt: skip


def test_a_refusal_is_an_error_with_birds_words(tmp_path):
    path = tmp_path / "bird.ctl"

    with (
        speaking(path, GREETING, "0002-Reading\n8002 bird.conf:3: syntax error\n"),
        Bird(path) as found,
        pytest.raises(BirdError, match=r"refuses `configure`: bird\.conf:3: ") as caught,
    ):
        found.configure()

    assert caught.value.hint


@pytest.mark.parametrize("code", [3, 4, 5, 18])
def test_a_configuration_that_is_taken_is_no_error(tmp_path, code):
    path = tmp_path / "bird.ctl"

    with speaking(path, GREETING, f"0002-Reading\n{code:04} said\n"), Bird(path) as found:
        found.configure()


def test_a_bird_that_shuts_down_takes_no_configuration(tmp_path):
    path = tmp_path / "bird.ctl"

    with (
        speaking(path, GREETING, "0006 Reconfiguration ignored, shutting down\n"),
        Bird(path) as found,
        pytest.raises(BirdError, match="shutting down"),
    ):
        found.configure()


def test_one_error_may_mean_nothing(tmp_path):
    path = tmp_path / "bird.ctl"

    with speaking(path, GREETING, "9001 No valid tables\n"), Bird(path) as found:
        assert found.ask("show route export x", nothing=9001) == []


def test_nobody_there_is_told_with_what_to_do(tmp_path):
    with pytest.raises(BirdError, match="BIRD does not run") as caught:
        Bird(tmp_path / "bird.ctl")

    assert "systemctl start pycni-bird" in caught.value.hint


@pytest.mark.parametrize("said", ["", "hello\n", " \n", "0001-and no end\n"])
def test_what_is_no_bird_is_told(tmp_path, said):
    path = tmp_path / "bird.ctl"

    with speaking(path, said), pytest.raises(BirdError, match="does not speak as BIRD does"):
        Bird(path)


def test_a_bird_that_says_nothing_at_all_hangs_too(tmp_path, monkeypatch):
    path = tmp_path / "bird.ctl"
    monkeypatch.setattr(bird, "TIMEOUT", 0.1)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(BirdError, match="BIRD hangs: its greeting") as caught:
            Bird(path)

    assert "restart" in caught.value.hint


def test_a_bird_that_hangs_is_told(tmp_path, monkeypatch):
    path = tmp_path / "bird.ctl"
    monkeypatch.setattr(bird, "TIMEOUT", 0.1)
    stop = threading.Event()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(GREETING.encode())
                stop.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        with Bird(path) as found, pytest.raises(BirdError, match="BIRD hangs"):
            found.ask("show status")
        stop.set()
        thread.join()


@pytest.mark.parametrize("name", ["SIZE_MAX", "ANSWER_MAX"])
def test_an_answer_without_end_is_told(tmp_path, monkeypatch, name):
    path = tmp_path / "bird.ctl"
    monkeypatch.setattr(bird, name, {"SIZE_MAX": 1 << 20, "ANSWER_MAX": 0.3}[name])

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(5)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(GREETING.encode())
                for _ in range(4096):  # in the end it ends, so that the test does, too
                    connection.sendall(b"1007-a route\n" * 100)
                    if name == "ANSWER_MAX":
                        time.sleep(0.002)
                connection.sendall(b"0000 \n")
                connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        with Bird(path) as found, pytest.raises(BirdError, match="has no end"):
            found.ask("show route all")
        thread.join()
