# SPDX-License-Identifier: Apache-2.0
"""pycni/agent/last_list.py and registration.py: a boot without the store, before and after."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from pycni.agent import last_list, registration
from pycni.agent.known import Known
from pycni.errors import PlaceLost, StoreError
from pycni.stores import NodeRecord
from unit.agent.runs import OneRun
from unit.node.test_last_list import ONE, TWO

SETTINGS: Any = SimpleNamespace(node_name="one", store_url="", cluster=None)


class Steps(OneRun):
    """Does something at each wait, and ends after the last."""

    def __init__(self, *steps: Any) -> None:
        super().__init__()
        self.steps = list(steps)
        self.waited: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        if self.steps:
            self.steps.pop(0)()
        else:
            self.end()


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[NodeRecord, ...]]:
    found: list[tuple[NodeRecord, ...]] = []

    def save(_: object, nodes: Iterable[NodeRecord]) -> None:
        found.append(tuple(nodes))

    monkeypatch.setattr(last_list.last_list, "save", save)
    return found


def test_a_list_is_written_when_it_differs_and_once_a_period(
    saved: list[tuple[NodeRecord, ...]],
) -> None:
    known = Known()
    run = Steps(
        lambda: known.tell([ONE]), lambda: known.tell([ONE]), lambda: known.tell([ONE, TWO])
    )

    last_list.follow(SETTINGS, run, known=known)

    assert saved == [(ONE,), (ONE, TWO)]
    assert run.waited == [last_list.LOOK, *[last_list.PERIOD] * 3]


def test_a_list_without_this_node_is_not_kept(saved: list[tuple[NodeRecord, ...]]) -> None:
    known = Known()
    known.tell([TWO])

    last_list.follow(SETTINGS, Steps(), known=known)

    assert saved == []


def test_a_node_that_was_set_up_without_the_store_is_when_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[object] = []
    registered = threading.Event()
    is_away = True

    def open_store(*_: object, **__: object) -> None:
        if is_away:
            raise StoreError("away", hint="")

    place: Any = None
    monkeypatch.setattr(registration, "open_store", open_store)
    monkeypatch.setattr(registration.provision, "setup", done.append)
    with pytest.raises(StoreError):
        registration.follow(SETTINGS, Steps(), place=place, registered=registered)
    assert not registered.is_set()

    is_away = False
    registration.follow(SETTINGS, Steps(), place=place, registered=registered)
    registration.follow(SETTINGS, Steps(), place=place, registered=registered)

    assert registered.is_set()
    assert done == [SETTINGS]


def test_a_node_that_cannot_register_because_its_place_is_anothers_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was set up by the last list: no pod may get an address of a place that is lost."""
    error = PlaceLost("gone", hint="drain")
    told: list[PlaceLost] = []

    def setup(_: object) -> None:
        raise error

    monkeypatch.setattr(registration, "open_store", lambda *_, **__: None)
    monkeypatch.setattr(registration.provision, "setup", setup)
    place: Any = SimpleNamespace(lose=told.append)
    registered = threading.Event()

    with pytest.raises(PlaceLost):
        registration.follow(SETTINGS, Steps(), place=place, registered=registered)

    assert told == [error]
    assert not registered.is_set()
