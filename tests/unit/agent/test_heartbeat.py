# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/heartbeat.py: the store is told that we live, and tells of another like us."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pycni.agent import heartbeat
from pycni.line_limit import LineLimit
from pycni.stores import Rival
from unit.agent.runs import OneRun


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch):
    """Send a heartbeat for each answer of the store; gives what was reported."""

    def run(*answers):
        one, waiting, told = OneRun(), list(answers), []
        registered = threading.Event()
        registered.set()

        def beat(name, *, instance):
            assert (name, instance) == ("n1", "us")
            answer = waiting.pop(0)
            if not waiting:
                one.end()
            return answer

        monkeypatch.setattr(heartbeat.Node, "load", lambda _: SimpleNamespace(name="n1"))
        monkeypatch.setattr(heartbeat, "machine_instance", lambda: "us")
        monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.0)
        store = SimpleNamespace(heartbeat=beat)
        monkeypatch.setattr(heartbeat, "open_store", lambda *_, **__: store)
        heartbeat.follow(
            SimpleNamespace(store_url="", cluster=None),
            one,
            report=SimpleNamespace(put=lambda *told_of: told.append(told_of)),
            limit=LineLimit(),
            registered=registered,
        )
        return told

    return run


def test_a_node_that_is_not_registered_yet_gives_no_heartbeat(monkeypatch) -> None:
    """The store still has the instance of its last boot, which would be taken for a rival."""
    one, registered = OneRun(), threading.Event()
    monkeypatch.setattr(heartbeat, "LOOK", 0.01)
    monkeypatch.setattr(heartbeat.Node, "load", lambda _: SimpleNamespace(name="n1"))
    asked: list[bool] = []

    def beat(*_: object, **__: object) -> None:
        asked.append(registered.is_set())
        one.end()

    store = SimpleNamespace(heartbeat=beat)
    monkeypatch.setattr(heartbeat, "open_store", lambda *_, **__: store)
    threading.Timer(0.1, registered.set).start()

    heartbeat.follow(
        SimpleNamespace(store_url="", cluster=None),
        one,
        report=SimpleNamespace(put=lambda *_: None),
        limit=LineLimit(),
        registered=registered,
    )

    assert asked == [True]


def test_nobody_else_is_nothing_to_say(follow, caplog) -> None:
    assert follow(None) == [("rival", "")]
    assert caplog.messages == []


def test_another_machine_with_our_name_is_reported_and_logged_once(follow, caplog) -> None:
    rival = Rival("them", "192.0.2.77")

    assert follow(rival, rival, None) == [
        ("rival", "with VTEP 192.0.2.77"),
        ("rival", "with VTEP 192.0.2.77"),
        ("rival", ""),
    ]
    assert caplog.messages == [
        'another machine has this node\'s name node=n1 other="with VTEP 192.0.2.77"'
    ]
