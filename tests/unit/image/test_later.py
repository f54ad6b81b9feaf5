# SPDX-License-Identifier: Apache-2.0
"""The image of a release to come: what differs in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from image import later, tree
from image.build import Built, pack
from loader.compile import source_digest
from pycni.errors import PycniError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of this project's sources."""
    later._copy_sources(tmp_path / "project")
    return tmp_path / "project"


def test_version_and_programs_are_others(project: Path) -> None:
    later.change(project)

    assert f'__version__ = "{later.VERSION}"' in (project / "pycni/__init__.py").read_text()
    assert source_digest(project / "bpf") != source_digest(tree.PROJECT / "bpf")


def test_a_text_that_is_not_there_once_is_said(project: Path) -> None:
    later.change(project)

    with pytest.raises(PycniError, match=r"pycni/__init__.py has the text"):
        later.change(project)


def test_an_image_is_unpacked_as_it_was_packed(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/pycni").write_text("#!")
    (root / "usr/bin/pycni").chmod(0o755)
    (root / "usr/bin/link").symlink_to("pycni")
    other.mkdir()

    made = pack(root, tmp_path / "image.tar", name="example.net/image:1")
    later.unpack(made.archive, other)

    assert isinstance(made, Built)
    assert (other / "usr/bin/link").readlink() == Path("pycni")
    assert (other / "usr/bin/link").read_text() == "#!"
    assert (other / "usr/bin/pycni").stat().st_mode & 0o777 == 0o755
