# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/notify.py: the service manager hears that the agent serves."""

import socket

import pytest

from pycni.agent import notify


def test_without_a_service_manager_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    notify.ready()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_service_manager_is_told_once(tmp_path, monkeypatch, kind):
    address = f"{tmp_path}/notify" if kind == "path" else f"@{tmp_path}/notify"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.settimeout(5)

        notify.ready()

        assert manager.recv(64) == b"READY=1"


def test_a_service_manager_that_is_gone_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/nobody")

    with pytest.raises(FileNotFoundError):
        notify.ready()
