# SPDX-License-Identifier: Apache-2.0
"""What `pycni status` says of the host beside the node: the list that the runtime uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pycni.cli import status
from pycni.settings import Settings
from pycni.setup import runtimes
from pycni.setup.conflist import CONFLIST, PLUGIN
from pycni.setup.runtimes import Found, Runtime
from pycni.upkeep import report
from pycni.upkeep.report import Row, State

OURS = {"name": "pycni", "plugins": [{"type": PLUGIN}]}
OTHER = {"name": "other", "plugins": [{"type": "bridge"}]}


@pytest.fixture
def conf_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = Found(Runtime("containerd", tmp_path, tmp_path, "a file"))
    monkeypatch.setattr(runtimes, "find", lambda: found)
    return tmp_path


def test_a_list_that_the_runtime_uses_in_the_place_of_ours_is_named(conf_dir: Path) -> None:
    (conf_dir / CONFLIST).write_text(json.dumps(OURS))
    (conf_dir / "87-other.conflist").write_text(json.dumps(OTHER))
    assert status._other_networks() == []
    first = conf_dir / "05-other.conflist"
    first.write_text(json.dumps(OTHER))

    (row,) = status._other_networks()

    assert row.state is State.DEGRADED
    assert row.cause.startswith(f"{first} sorts before {CONFLIST}")
    assert row.todo.startswith("remove it")


def test_lists_of_a_host_whose_runtime_does_not_use_pycni_are_others_business(
    conf_dir: Path,
) -> None:
    (conf_dir / "05-other.conflist").write_text(json.dumps(OTHER))

    assert status._other_networks() == []


@pytest.mark.usefixtures("conf_dir")
@pytest.mark.parametrize(("wait", "took"), [(10.0, 0.1), (10.0, 3.0), (10.0, 4.0), (2.0, 0.7)])
def test_no_wait_is_longer_than_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, wait: float, took: float
) -> None:
    now = 100.0
    looks: list[float] = []

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def rows(_: object) -> list[Row]:
        looks.append(now)
        pass_time(took)
        return [Row("uplink", State.BROKEN, "gone")]

    monkeypatch.setattr(status.time, "monotonic", lambda: now)
    monkeypatch.setattr(status.time, "sleep", pass_time)
    monkeypatch.setattr(report, "rows", rows)

    found = status._look(Settings(node_name="one"), wait=wait)

    assert len(found) == 1
    assert len(looks) > 1
    assert wait - took - status.LOOK <= now - 100.0 <= wait + 0.001


@pytest.mark.usefixtures("conf_dir")
def test_a_look_without_a_wait_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def rows(_: object) -> list[Row]:
        looks.append(None)
        return [Row("uplink", State.BROKEN, "gone")]

    monkeypatch.setattr(report, "rows", rows)

    status._look(Settings(node_name="one"), wait=0.0)

    assert len(looks) == 1
