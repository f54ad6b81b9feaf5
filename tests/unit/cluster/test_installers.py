# SPDX-License-Identifier: Apache-2.0
"""The ways to install pycni: what each of them gives to kubectl and helm."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import helm, installers, release
from cluster.installers import Chart, Kustomize, Manifest
from cluster.layout import Cluster
from cluster.life import Running
from image import manifests
from pycni.errors import PycniError
from pycni.lab import processes
from unit.cluster.clusters import PROGRAMS, drawn

IMAGE = "pycni.dev/pycni:2"
NAMES = ("apply", "apply_kinds", "uninstall", "take_nodes_back")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = replace(drawn(), base=tmp_path)
    made.directory.mkdir()
    return made


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What kubectl, helm and release.py are asked for, in order."""
    found: list[str] = []

    def say(*words: object, **_: object) -> None:
        found.append(" ".join(str(word) for word in words if isinstance(word, str | Path)))

    def named(name: str) -> Callable[..., None]:
        return lambda *_, **__: found.append(name)

    monkeypatch.setattr(Running, "kubectl", property(lambda _: say))
    monkeypatch.setattr(helm, "run", say)
    for name in NAMES:
        monkeypatch.setattr(release, name, named(name))
    return found


def test_the_manifest_is_applied_and_applied_again(cluster: Cluster, called: list[str]) -> None:
    way = Manifest(Running(cluster, PROGRAMS))

    way.install(IMAGE)
    way.upgrade(IMAGE)
    way.roll_back(IMAGE)
    way.uninstall(IMAGE)

    assert called == ["apply", "apply", "apply", "uninstall"]


def test_an_overlay_has_the_image_and_where_the_api_server_is(
    cluster: Cluster, called: list[str]
) -> None:
    way = Kustomize(Running(cluster, PROGRAMS))

    way.install(IMAGE)
    way.uninstall(IMAGE)

    directory = cluster.directory / "overlay"
    made = json.loads((directory / "kustomization.yaml").read_text())
    (base,) = made["resources"]
    assert (directory / base / "kustomization.yaml").exists()
    assert made["images"] == [{"name": "pycni.dev/pycni", "newTag": "2"}]
    (operation,) = json.loads(made["patches"][0]["patch"])
    assert operation["value"] == installers.server(cluster)
    assert called == [
        "apply_kinds", f"apply --server-side --kustomize={directory}",
        "take_nodes_back", f"delete --kustomize={directory} --ignore-not-found",
    ]  # fmt: skip


def test_an_upgrade_by_the_chart_changes_the_kinds_first(
    cluster: Cluster, called: list[str]
) -> None:
    way = Chart(Running(cluster, PROGRAMS), Path("/helm"))

    way.install(IMAGE)
    way.upgrade(IMAGE)
    way.roll_back(IMAGE)
    way.uninstall(IMAGE)

    values = json.loads((cluster.directory / "values.json").read_text())
    assert values["image"] == IMAGE
    place = "--namespace=kube-system"
    given = f"pycni {manifests.HELM} --values={cluster.directory}/values.json {place}"
    kinds = f"--filename={manifests.KUBERNETES}/crds.yaml"
    assert called == [
        f"/helm install {given}", f"apply --server-side --force-conflicts {kinds}",
        f"/helm upgrade {given}", f"/helm rollback pycni {place}", "take_nodes_back",
        f"/helm uninstall pycni {place}", f"delete {kinds}",
    ]  # fmt: skip


def test_the_values_are_those_that_the_chart_has(cluster: Cluster, called: list[str]) -> None:
    Chart(Running(cluster, PROGRAMS), Path("/helm")).install(IMAGE)

    given = json.loads((cluster.directory / "values.json").read_text())
    assert called
    assert given.keys() <= {knob.value for knob in manifests.KNOBS}


def test_what_helm_says_when_it_fails_is_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = SimpleNamespace(returncode=1, stderr=b"Error: no such release", stdout=b"")
    monkeypatch.setattr(processes, "run", lambda *_, **__: done)

    with pytest.raises(PycniError, match="helm rollback pycni failed") as error:
        helm.run(cluster, Path("/helm"), "rollback", "pycni")

    assert error.value.details == "Error: no such release"


def test_only_a_version_of_helm_4_is_built() -> None:
    assert str(helm.Helm(helm.VERSION)) == f"Helm {helm.VERSION}"
    with pytest.raises(PycniError, match=r"'3\.1\.0' is no version of Helm 4"):
        helm.Helm("3.1.0")
