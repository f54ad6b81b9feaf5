# SPDX-License-Identifier: Apache-2.0
"""What is built of which Go modules."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster import recipe
from cluster.recipe import CLUSTER, END_TO_END, SOURCES, Part
from pycni.errors import PycniError

VERSION = "1.37.2"
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
    ours = recipe.go_mod(THEIRS, VERSION)

    assert ours.startswith("module pycni/cluster\n")
    assert "require github.com/spf13/cobra v1.10.0" in ours
    assert f"k8s.io/kubernetes v{VERSION}" in ours
    assert f"github.com/coredns/coredns v{recipe.COREDNS}" in ours


def test_staging_modules_come_from_the_proxy() -> None:
    ours = recipe.go_mod(THEIRS, VERSION)

    assert "k8s.io/api => k8s.io/api v0.37.2" in ours
    assert "k8s.io/cli-runtime => k8s.io/cli-runtime v0.37.2" in ours
    assert "./staging" not in ours


@pytest.mark.parametrize("version", ["1.37", "v1.37.2", "2.0.0", "1.37.2-rc.1", "1.37.2 -o /x", ""])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(PycniError, match="no version of Kubernetes"):
        recipe.check_version(version)


def test_a_version_is_taken() -> None:
    assert recipe.check_version(VERSION) == VERSION


def test_kubelet_says_its_version() -> None:
    flags = recipe.link_flags(PARTS["kube"], VERSION, "2.66.1")

    assert "-X k8s.io/component-base/version.gitVersion=v1.37.2" in flags
    assert "-X k8s.io/component-base/version.gitMinor=37" in flags
    assert "2.66.1" not in flags


def test_agnhost_says_its_own_version() -> None:
    assert "-X main.Version=2.66.1" in recipe.link_flags(PARTS["agnhost"], VERSION, "2.66.1")


def test_tests_are_compiled_and_programs_built() -> None:
    output = Path("/there")

    assert recipe.build_command(PARTS["kube"], "", output)[0] == "build"
    assert recipe.build_command(PARTS["e2e.test"], "", output)[:2] == ["test", "-c"]


def test_a_digest_changes_with_version_and_sources(tmp_path: Path) -> None:
    part = PARTS["pause"]
    shutil.copytree(SOURCES, tmp_path / "go")
    before = recipe.digest(part, VERSION, sources=tmp_path / "go")

    with (tmp_path / "go/pause/main.go").open("a") as file:
        file.write("// a change\n")

    assert before == recipe.digest(part, VERSION)
    assert before != recipe.digest(part, "1.37.3")
    assert before != recipe.digest(part, VERSION, sources=tmp_path / "go")


def test_a_change_of_one_program_leaves_the_others(tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "go")
    before = recipe.digest(PARTS["kube"], VERSION, sources=tmp_path / "go")

    (tmp_path / "go/pause/main.go").write_text("package main\n")

    assert recipe.digest(PARTS["kube"], VERSION, sources=tmp_path / "go") == before


def names(parts: list[Part]) -> list[str]:
    return [part.name for part in parts]


def test_an_interrupted_build_goes_on_with_what_is_missing() -> None:
    built = {part.name: recipe.digest(part, VERSION) for part in CLUSTER}
    present = [part.name for part in CLUSTER]

    assert recipe.missing(CLUSTER, VERSION, built, present) == []
    assert names(recipe.missing(CLUSTER, VERSION, built, present[:-1])) == present[-1:]
    assert names(recipe.missing(CLUSTER, VERSION, built | {"kube": "other"}, present)) == ["kube"]
    assert recipe.missing(CLUSTER, VERSION, {}, []) == list(CLUSTER)


def test_every_program_of_ours_has_its_sources() -> None:
    packages = {part.package for part in PARTS.values() if part.package.startswith("./")}

    assert packages == {f"./{entry.name}" for entry in SOURCES.iterdir()}
