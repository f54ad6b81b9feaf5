# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/server.py: one agent per node, its socket, and when it stops."""

from __future__ import annotations

import logging
import socket
import stat
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pycni.agent import server
from pycni.agent.current import Current
from pycni.cni.protocol import Reply
from pycni.errors import SetupError
from pycni.kernel.forgetting import Forgetting
from pycni.locks import agent_lock
from pycni.names import AWAY_NOTE
from pycni.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node_name="one", run_dir=tmp_path / "run")


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect(str(path))
    return client


def test_a_second_agent_is_refused_and_told_who_the_first_is(settings: Settings) -> None:
    with (
        server.only_agent(settings),
        pytest.raises(SetupError, match="another agent serves") as caught,
        server.only_agent(settings),
    ):
        pass

    assert "locked by process" in caught.value.details


def test_the_next_agent_is_not_refused(settings: Settings) -> None:
    for _ in range(2):
        with server.only_agent(settings):
            pass

    with agent_lock(settings.run_dir):
        pass


def test_an_error_of_the_agent_itself_is_not_taken_for_another_agent(settings: Settings) -> None:
    with pytest.raises(KeyError), server.only_agent(settings):
        raise KeyError


def test_the_socket_is_private_and_goes_with_the_agent(settings: Settings) -> None:
    path = settings.socket_path

    with server.listening(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    assert not path.exists()


def test_a_socket_that_a_killed_agent_left_is_replaced(settings: Settings) -> None:
    path = settings.socket_path
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))

    with server.listening(path), connect(path):
        pass


def test_an_agent_that_has_come_is_away_no_more(settings: Settings) -> None:
    note = settings.run_dir / AWAY_NOTE
    note.parent.mkdir(mode=0o700)
    note.write_text("17")

    with server.listening(settings.socket_path):
        assert not note.exists()


def test_a_socket_that_somebody_serves_is_left_alone(settings: Settings) -> None:
    path = settings.socket_path

    with server.listening(path):
        with pytest.raises(SetupError, match="another agent serves"), server.listening(path):
            pass
        connect(path).close()


def test_a_socket_of_the_next_agent_is_left_alone(settings: Settings) -> None:
    path = settings.socket_path

    with server.listening(path):
        path.unlink()
        path.touch()

    assert path.exists()


def serve(listener: socket.socket, settings: Settings, stop: threading.Event) -> None:
    server.serve(listener, Current(settings, lambda: settings), stop, forgetting=Forgetting())


def test_calls_are_answered_until_the_agent_stops(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()

    def serve_connection(connection: socket.socket, handler: object) -> None:
        assert callable(handler)
        with connection:
            connection.sendall(handler({}, b"", None).stdout)
        raise RuntimeError("a bug")

    monkeypatch.setattr(server.rpc, "serve_connection", serve_connection)
    monkeypatch.setattr(server.dispatch, "answer", lambda *_, **__: Reply(0, b"{}", b""))
    with server.listening(settings.socket_path) as listener:
        thread = threading.Thread(target=serve, args=(listener, settings, stop))
        thread.start()
        for _ in range(2):
            with connect(settings.socket_path) as client:
                assert client.recv(2) == b"{}"
        stop.set()
        thread.join(10)

    assert not thread.is_alive()
    assert caplog.text.count("a bug") >= 2


def test_a_call_is_answered_by_the_settings_of_the_last_setup(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, current = threading.Event(), Current(settings, lambda: settings)

    def serve_connection(connection: socket.socket, handler: Any) -> None:
        with connection:
            connection.sendall(handler({}, b"", None).stdout)

    def answer(*_: object, settings: Settings, **__: object) -> Reply:
        return Reply(0, settings.log_level.encode(), b"")

    monkeypatch.setattr(server.rpc, "serve_connection", serve_connection)
    monkeypatch.setattr(server.dispatch, "answer", answer)
    told = []
    with server.listening(settings.socket_path) as listener:
        work = partial(server.serve, listener, current, stop, forgetting=Forgetting())
        thread = threading.Thread(target=work)
        thread.start()
        for level in ("info", "error"):
            current.settings = settings.model_copy(update={"log_level": level})
            with connect(settings.socket_path) as client:
                told.append(client.recv(10).decode())
        stop.set()
        thread.join(10)

    assert told == ["info", "error"]


def test_an_agent_whose_socket_is_gone_stops(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()

    def remove() -> None:
        settings.socket_path.unlink()

    with server.listening(settings.socket_path) as listener, caplog.at_level(logging.WARNING):
        remover = threading.Timer(0.05, remove)
        remover.start()
        serve(listener, settings, stop)
        remover.join()

    assert stop.is_set()
    assert "the socket is gone" in caplog.text
