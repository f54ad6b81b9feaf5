# SPDX-License-Identifier: Apache-2.0
"""A node that boots: whose addresses are whose, and when its pods have ended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import boots, network, node, reboot, reboot_checks, traces
from cluster.boots import Full
from cluster.commands import SHUTDOWN_PERIODS
from cluster.kubectl import Json, Kubectl
from cluster.life import Running
from support import leftovers
from unit.cluster.clusters import PROGRAMS, drawn

CLUSTER = drawn()
SCENE = Full(Running(CLUSTER, PROGRAMS))
LAST = CLUSTER.workers[-1]
FIRST = CLUSTER.workers[0].name


def pod(
    name: str, *addresses: str, on: str = LAST.name, phase: str = "Running", **spec: Json
) -> Json:
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": on, **spec},
        "status": {"phase": phase, "podIPs": [{"ip": address} for address in addresses]},
    }


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the API has of pods, and which addresses pycni holds."""

    def show(pods: list[Json], held: list[str]) -> None:
        monkeypatch.setattr(Kubectl, "get", lambda *_: {"items": pods})
        rows = json.dumps([{"address": address} for address in held])
        monkeypatch.setattr(network, "run", lambda *_: rows)
        monkeypatch.setattr(reboot_checks, "WELL_SECONDS", 0)

    return show


def test_each_address_is_one_pods_and_no_other_is_held(shown: Callable[..., None]) -> None:
    host = pod("agent", "198.18.50.1", hostNetwork=True)
    ended = pod("ended", "10.0.0.1", phase="Failed")
    shown([pod("a", "10.0.0.1", "fd00::1"), pod("b", "10.0.1.1", on=FIRST), host, ended],
          ["10.0.0.1", "fd00::1"])  # fmt: skip

    assert not reboot_checks.given_once(SCENE, LAST)


@pytest.mark.parametrize(
    ("other", "held", "found"),
    [
        (pod("b", "10.0.0.1", on=FIRST), ["10.0.0.1"], "10.0.0.1 is that of 2 pods"),
        (pod("b", "10.0.0.1", phase="Pending"), ["10.0.0.1"], "10.0.0.1 is that of 2 pods"),
        (pod("b", "10.0.0.2", on=FIRST), ["10.0.0.1", "10.0.0.2"], "10.0.0.2 is no pod's"),
        (pod("b", "10.0.0.2"), ["10.0.0.1"], "10.0.0.2 is not held"),
    ],
)
def test_an_address_that_two_have_or_that_is_lost_or_leaked_is_told(
    shown: Callable[..., None], other: Json, held: list[str], found: str
) -> None:
    shown([pod("a", "10.0.0.1"), other], held)

    assert reboot_checks.given_once(SCENE, LAST) == found


def test_pods_that_still_run_at_a_shutdown_are_named(shown: Callable[..., None]) -> None:
    shown([pod("a", phase="Failed"), pod("b"), pod("c", phase="Succeeded")], [])

    assert boots._have_ended(SCENE) == "b is Running"


@pytest.mark.parametrize("graceful", [True, False])
def test_only_a_graceful_kubelet_delays_a_shutdown(
    graceful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Json] = []
    monkeypatch.setattr(node, "replace_file", lambda path, text: written.append(json.loads(text))
                        if path.name == "kubelet.json" else None)  # fmt: skip
    monkeypatch.setattr(node.Machine, "path", lambda _, name: PROGRAMS / name.lstrip("/"))
    monkeypatch.setattr(node.Machine, "start_daemon", lambda *_: None)

    node.start_kubelet(CLUSTER, PROGRAMS, LAST, graceful=graceful)

    (configuration,) = written
    assert (configuration.items() >= SHUTDOWN_PERIODS.items()) == graceful


@pytest.mark.parametrize(("alive", "started"), [(True, []), (False, ["kubelet"])])
def test_a_kubelet_that_has_ended_is_started_again(
    *, alive: bool, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    kept = SimpleNamespace(alive=alive)
    monkeypatch.setattr(reboot.Machine, "daemon", lambda *_: kept)
    monkeypatch.setattr(reboot.Machine, "start_again", lambda _, name: found.append(name))

    reboot.supervise(LAST)

    assert found == started


def test_a_control_group_that_goes_at_the_look_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kubepods" / "pod1" / "container").mkdir(parents=True)
    monkeypatch.setattr(leftovers, "cgroups", lambda _: [tmp_path, tmp_path / "gone"])
    real = os.scandir

    def scan(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("pod1"):
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)

    assert list(traces._control_groups("any")) == [tmp_path / "kubepods" / "pod1"]


@pytest.mark.parametrize(
    ("status", "items", "known"),
    [(0, [{}] * boots.FULL, True), (0, [{}], False), (0, None, False), (1, None, False)],
)
def test_a_kubelet_that_has_just_started_knows_no_pods(
    *, status: int, items: list[Json] | None, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = SimpleNamespace(returncode=status, stdout=json.dumps({"items": items}).encode())
    monkeypatch.setattr(Kubectl, "run", lambda *_, **__: done)

    assert boots._knows_its_pods(SCENE) == known
