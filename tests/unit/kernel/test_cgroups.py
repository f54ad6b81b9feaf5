# SPDX-License-Identifier: Apache-2.0
"""pycni/kernel/cgroups.py: which mount shows the root of control groups v2."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycni.kernel import cgroups, mounts
from pycni.kernel.cgroups import Root


@pytest.fixture
def see(monkeypatch, tmp_path):
    """Have these directories mounted as control groups v2, each with these files."""

    def have(**groups: tuple[str, ...]) -> None:
        lines = []
        for name, files in groups.items():
            point = tmp_path / name
            point.mkdir()
            for file in files:
                (point / file).touch()
            lines.append(f"30 28 0:26 / {point} rw - cgroup2 cgroup2 rw\n")
        file = tmp_path / "mountinfo"
        file.write_text("28 1 8:1 / / rw - ext4 /dev/vda1 rw\n" + "".join(lines))
        monkeypatch.setattr(mounts, "MOUNTINFO", file)

    return have


WHOLE, PART = (cgroups.OF_V2,), (cgroups.OF_V2, cgroups.NOT_IN_ROOT)


def test_without_v2_there_is_none(see):
    see()

    assert cgroups.root() is None


def test_the_true_root_goes_before_a_part_of_it(see, tmp_path: Path):
    see(part=PART, whole=WHOLE)

    assert cgroups.root() == Root(tmp_path / "whole", is_whole=True)


def test_a_part_is_better_than_nothing(see, tmp_path: Path):
    see(part=PART, another=PART)

    assert cgroups.root() == Root(tmp_path / "part", is_whole=False)


def test_a_mount_that_another_one_covers_does_not_count(see):
    see(covered=())

    assert cgroups.root() is None
