# SPDX-License-Identifier: Apache-2.0
"""What is built of which Go modules."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster import recipe
from cluster.product import Part
from cluster.recipe import CLUSTER, END_TO_END, SOURCES, Kubernetes
from pycni.errors import PycniError

VERSION = "1.37.2"
KUBERNETES = Kubernetes(VERSION)
THEIRS = """\
module k8s.io/kubernetes

go 1.26.0

require github.com/spf13/cobra v1.10.0

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/cli-runtime => ./staging/src/k8s.io/cli-runtime
)
"""
PARTS = {part.name: part for part in (*CLUSTER, *END_TO_END)}


def test_our_module_has_the_versions_that_kubernetes_chose() -> None:
    ours = KUBERNETES.go_mod(THEIRS)

    assert ours.startswith("module pycni/cluster\n")
    assert "require github.com/spf13/cobra v1.10.0" in ours
    assert f"k8s.io/kubernetes v{VERSION}" in ours
    assert f"github.com/coredns/coredns v{recipe.COREDNS}" in ours


def test_staging_modules_come_from_the_proxy() -> None:
    ours = KUBERNETES.go_mod(THEIRS)

    assert "k8s.io/api => k8s.io/api v0.37.2" in ours
    assert "k8s.io/cli-runtime => k8s.io/cli-runtime v0.37.2" in ours
    assert "./staging" not in ours


@pytest.mark.parametrize("version", ["1.37", "v1.37.2", "2.0.0", "1.37.2-rc.1", "1.37.2 -o /x", ""])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(PycniError, match="no version of Kubernetes"):
        Kubernetes(version)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Of Kubernetes."""
    stated = tmp_path / "source/test/images/agnhost/VERSION"
    stated.parent.mkdir(parents=True)
    stated.write_text("2.66.1\n")
    return tmp_path / "source"


def test_kubelet_says_its_version(source: Path) -> None:
    flags = KUBERNETES.link_flags(PARTS["kube"], source)

    assert "-X k8s.io/component-base/version.gitVersion=v1.37.2" in flags
    assert "-X k8s.io/component-base/version.gitMinor=37" in flags
    assert "2.66.1" not in flags


def test_agnhost_says_its_own_version(source: Path) -> None:
    assert "-X main.Version=2.66.1" in KUBERNETES.link_flags(PARTS["agnhost"], source)


def test_tests_are_compiled_and_programs_built() -> None:
    output = Path("/there")

    assert KUBERNETES.build_command(PARTS["kube"], "", output)[0] == "build"
    assert KUBERNETES.build_command(PARTS["e2e.test"], "", output)[:2] == ["test", "-c"]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of our own Go programs, which the recipe takes."""
    copy = Path(shutil.copytree(SOURCES, tmp_path / "go"))
    monkeypatch.setattr(Kubernetes, "own", copy)
    return copy


def test_a_digest_changes_with_version_and_sources(sources: Path) -> None:
    part = PARTS["pause"]
    before = KUBERNETES.digest(part)

    with (sources / "pause/main.go").open("a") as file:
        file.write("// a change\n")

    assert before != Kubernetes("1.37.3").digest(part)
    assert before != KUBERNETES.digest(part)


def test_a_change_of_one_program_leaves_the_others(sources: Path) -> None:
    before = KUBERNETES.digest(PARTS["kube"])

    (sources / "pause/main.go").write_text("package main\n")

    assert KUBERNETES.digest(PARTS["kube"]) == before


def names(parts: list[Part]) -> list[str]:
    return [part.name for part in parts]


def test_an_interrupted_build_goes_on_with_what_is_missing() -> None:
    built = {part.name: KUBERNETES.digest(part) for part in CLUSTER}
    present = [part.name for part in CLUSTER]

    assert KUBERNETES.missing(CLUSTER, built, present) == []
    assert names(KUBERNETES.missing(CLUSTER, built, present[:-1])) == present[-1:]
    assert names(KUBERNETES.missing(CLUSTER, built | {"kube": "other"}, present)) == ["kube"]
    assert KUBERNETES.missing(CLUSTER, {}, []) == list(CLUSTER)


def test_every_program_of_ours_has_its_sources() -> None:
    packages = {part.package for part in PARTS.values() if part.package.startswith("./")}

    assert packages == {f"./{entry.name}" for entry in SOURCES.iterdir()}
