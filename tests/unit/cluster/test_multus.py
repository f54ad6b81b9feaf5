# SPDX-License-Identifier: Apache-2.0
"""Multus: its recipe, and what nodes and pods are given of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import multus, multus_checks
from cluster.commands import CNI_BIN, CNI_CONF
from cluster.life import Running
from cluster.multus import Multus
from pycni.cni import network_lists
from pycni.errors import PycniError
from pycni.setup.conflist import CONFLIST
from unit.cluster.clusters import PROGRAMS, drawn

CLUSTER = drawn()
NODE = CLUSTER.workers[0]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Where a machine has its files; the directories of CNI are there."""

    def path(name: str) -> Path:
        return tmp_path / "machine" / name.lstrip("/")

    for directory in (CNI_BIN, CNI_CONF):
        path(directory).mkdir(parents=True)
    monkeypatch.setattr(multus, "Machine", lambda _: SimpleNamespace(path=path))
    return path


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of reference plugins, and Multus."""
    for name in (*multus.PLUGINS, "multus"):
        (tmp_path / name).touch()
    monkeypatch.setattr(multus, "REFERENCE", tmp_path)
    return tmp_path


@pytest.mark.parametrize("version", ["4", "4.2", "3.9.3", "v4.2.2", "latest", ""])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(PycniError, match="no version of Multus 4"):
        Multus(version)


def test_it_says_its_version() -> None:
    flags = Multus(multus.VERSION).link_flags(multus.PARTS[0], None)

    assert f"-X {multus.PACKAGE}/pkg/multus.version=v{multus.VERSION}" in flags


def test_it_calls_pycnis_list_and_asks_it_for_its_status() -> None:
    made = multus.configuration(CLUSTER)

    assert made["clusterNetwork"] == f"{CNI_CONF}/{CONFLIST}"
    assert made["cniVersion"] == "1.1.0"
    assert Path(made["kubeconfig"]).is_relative_to(CLUSTER.directory)


@pytest.mark.usefixtures("reference")
def test_it_goes_first_on_a_node_and_away_again(
    machine: Callable[[str], Path], tmp_path: Path
) -> None:
    ours = machine(f"{CNI_CONF}/{CONFLIST}")
    ours.write_text('{"plugins": [{"type": "pycni"}]}')

    multus.put_first(CLUSTER, NODE, tmp_path / "multus")
    lists = network_lists.read_all(ours.parent)
    plugins = {file.name for file in machine(CNI_BIN).iterdir()}
    multus.take_away(NODE)
    multus.take_away(NODE)

    assert [one.path.name for one in lists] == [Path(multus.CONF).name, CONFLIST]
    assert lists[0].is_of_multus
    assert plugins == {"multus", *multus.PLUGINS}
    assert list(machine(CNI_BIN).iterdir()) == []
    assert list(ours.parent.iterdir()) == [ours]


def test_a_plugin_that_is_missing_is_said(machine: Callable[[str], Path], reference: Path) -> None:
    (reference / "static").unlink()

    with pytest.raises(PycniError, match=r"static is missing"):
        multus.put_first(CLUSTER, NODE, reference / "multus")

    assert not machine(multus.CONF).exists()


def test_a_pod_asks_for_its_second_network() -> None:
    pod = multus.with_second({"metadata": {}}, "net1", ["192.168.77.11/24"])

    (wish,) = json.loads(pod["metadata"]["annotations"][multus.WISHES])
    assert wish == {"name": multus.SECOND, "interface": "net1", "ips": ["192.168.77.11/24"]}
    assert multus.second_network()["metadata"]["name"] == multus.SECOND


def test_what_it_keeps_of_pods_is_a_trace(machine: Callable[[str], Path]) -> None:
    assert multus.kept(NODE) == set()
    (machine(multus.KEPT) / "results").mkdir(parents=True)
    (machine(multus.KEPT) / "results/pycni-1-eth0").touch()

    assert multus.kept(NODE) == {"file of Multus results/pycni-1-eth0"}


def test_nodes_lose_it_however_the_checks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    running = Running(CLUSTER, PROGRAMS)
    monkeypatch.setattr(multus_checks, "_traces", lambda *_: set())
    monkeypatch.setattr(multus_checks, "_early_pods_run", lambda _: None)
    monkeypatch.setattr(multus_checks, "installed", interrupt)
    monkeypatch.setattr(multus, "take_away", lambda node: taken.append(node.name))
    monkeypatch.setattr(multus, "undefine", lambda _: taken.append("kind"))

    with pytest.raises(KeyboardInterrupt):
        list(multus_checks.everything(running, Path("multus")))

    assert taken == ["node1", "node2", "kind"]


def test_a_pod_may_ask_for_pycni_once_more() -> None:
    """By the name of a network whose configuration is pycni's, and needs nothing else."""
    network = multus.network_of_pycni()
    pod: dict[str, Any] = {"metadata": {"name": "a"}}

    (wish,) = json.loads(
        multus.with_pycni_twice(pod, "net1")["metadata"]["annotations"][multus.WISHES]
    )

    assert wish == {"name": network["metadata"]["name"], "interface": "net1"}
    assert json.loads(network["spec"]["config"])["type"] == "pycni"


def test_a_runtime_that_does_not_know_its_results_is_refused() -> None:
    """containerd 1.6 says `unsupported CNI result version "1.1.0"`."""
    multus.refuse_older_runtime(drawn(containerd="2.4.2"))

    with pytest.raises(PycniError, match=r"results of CNI 1\.1\.0") as error:
        multus.refuse_older_runtime(drawn())
    assert "--containerd 2" in error.value.hint
