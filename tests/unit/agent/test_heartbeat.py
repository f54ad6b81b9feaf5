# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/heartbeat.py: the store is told that we live, and tells of another like us."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pycni.agent import heartbeat
from pycni.errors import PlaceLost, StoreError
from pycni.line_limit import LineLimit
from pycni.stores import Rival
from unit.agent.runs import OneRun


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch):
    """Send a heartbeat for each answer of the store; gives what was reported."""

    def run(*answers, place_of=None):
        one, waiting, told = OneRun(), list(answers), []
        place = place_of or SimpleNamespace(beat=lambda *_: None)
        registered = threading.Event()
        registered.set()

        def beat(name, *, instance):
            assert (name, instance) == ("n1", "us")
            answer = waiting.pop(0)
            if not waiting:
                one.end()
            if isinstance(answer, Exception):
                raise answer
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
            place=place,
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
        place=SimpleNamespace(beat=lambda *_: None),
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


class Told:
    """Stands in for Place: notes what it is told."""

    def __init__(self):
        self.heard = []

    def beat(self, node, rival):
        self.heard.append((node.name, rival))

    def lose(self, error):
        self.heard.append(error)

    def repeat(self):
        self.heard.append("repeat")


def test_what_a_heartbeat_says_about_the_place_is_told(follow) -> None:
    told, rival = Told(), Rival("them")
    follow(None, rival, place_of=told)

    assert told.heard == [("n1", None), ("n1", rival)]


def test_a_place_that_is_lost_is_told_and_the_loop_fails(follow) -> None:
    told, lost = Told(), PlaceLost("gone")
    with pytest.raises(PlaceLost):
        follow(lost, place_of=told)

    assert told.heard == [lost]


def test_a_store_that_does_not_answer_says_nothing_about_the_place(follow) -> None:
    told = Told()
    with pytest.raises(StoreError):
        follow(StoreError("away"), place_of=told)

    assert told.heard == ["repeat"]
