# SPDX-License-Identifier: Apache-2.0
"""Control groups of a node, in directories that look like hierarchies."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import cgroups

NAME = "k8s-node1"


def test_a_hierarchy_of_version_one_gets_a_group_with_processors(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset.mems").write_text("0\n")

    cgroups.make_in(tmp_path, NAME)

    assert (tmp_path / NAME / "cpuset.cpus").read_text() == "0-1\n"
    assert (tmp_path / NAME / "cpuset.mems").read_text() == "0\n"


def test_other_hierarchies_of_version_one_get_a_group_only(tmp_path: Path) -> None:
    cgroups.make_in(tmp_path, NAME)

    assert list((tmp_path / NAME).iterdir()) == []


def test_version_two_has_its_controllers_switched_on_down_to_the_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma\n")

    cgroups.make_in(tmp_path, NAME)

    for level in (tmp_path, tmp_path / NAME):
        assert (level / "cgroup.subtree_control").read_text() == "+cpu +cpuset +io +memory +pids"


def test_beside_version_one_the_unified_hierarchy_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unified, memory = tmp_path / "unified", tmp_path / "memory"
    unified.mkdir()
    memory.mkdir()
    (unified / "cgroup.controllers").touch()
    monkeypatch.setattr(cgroups.leftovers, "hierarchies", lambda: [unified, memory])

    cgroups.make(NAME)

    assert (memory / NAME).is_dir()
    assert not (unified / NAME).exists()


def test_all_is_removed_with_what_is_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups.leftovers, "hierarchies", lambda: [tmp_path])
    (tmp_path / NAME / "kubepods" / "pod").mkdir(parents=True)

    cgroups.remove(NAME)
    cgroups.remove(NAME)

    assert list(tmp_path.iterdir()) == []
