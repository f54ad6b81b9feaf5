# SPDX-License-Identifier: Apache-2.0
"""The wheel has what a node without compiler needs, and says what it is and whose."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import pycni
from loader import clang
from loader.compile import OBJECTS, compile_programs
from loader.errors import CompileError
from pycni.cni import launcher
from pycni.cni.plugin import VERSIONS

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that holds what is in a wheel built from this tree."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", directory, PROJECT], check=True)
    (built,) = directory.glob("pycni-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(directory)
    return directory


@pytest.fixture
def installed(wheel: Path) -> Path:
    """The package `loader` of the wheel."""
    return wheel / "loader"


@pytest.fixture
def no_clang(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> clang.Clang:
        raise CompileError("no clang on PATH", hint="apt install clang")

    monkeypatch.setattr(clang, "find_clang", refuse)


@pytest.mark.usefixtures("no_clang")
def test_its_objects_serve_where_there_is_no_clang(installed: Path, tmp_path: Path) -> None:
    objects = compile_programs(
        tmp_path, sources=installed / "bpf_sources", prebuilt=installed / "bpf_objects"
    )

    assert objects.directory == installed / "bpf_objects"
    assert all(objects.path(program).stat().st_size for program in OBJECTS)


@pytest.mark.usefixtures("no_clang")
def test_its_objects_do_not_serve_sources_that_were_changed(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "changed.h").write_text("/* not what was compiled */\n")

    with pytest.raises(CompileError, match="no clang") as error:
        compile_programs(tmp_path, sources=tmp_path, prebuilt=installed / "bpf_objects")

    assert "does not hold objects of these sources" in error.value.details
    assert error.value.hint == "apt install clang"


def test_its_version_is_the_packages(wheel: Path) -> None:
    assert metadata(wheel)["Version"] == pycni.__version__


def test_it_says_whose_it_is_and_under_which_terms(wheel: Path) -> None:
    found = metadata(wheel)

    assert found["Author"] == "the pycni authors"
    assert found["License-Expression"] == "Apache-2.0 AND GPL-2.0-only AND LGPL-2.1-or-later"
    assert set(found.get_all("License-File", ())) == {
        "LICENSE",
        "LICENSES/Apache-2.0.txt",
        "LICENSES/GPL-2.0-only.txt",
        "LICENSES/LGPL-2.1-or-later.txt",
    }
    for name in found.get_all("License-File", ()):
        (text,) = wheel.glob(f"pycni-*.dist-info/licenses/{name}")
        assert text.read_bytes() == (PROJECT / name).read_bytes()


def test_it_tells_type_checkers_that_it_is_typed(wheel: Path) -> None:
    assert (wheel / "pycni" / "py.typed").exists()
    assert (wheel / "loader" / "py.typed").exists()


def metadata(wheel: Path) -> Message:
    """What PyPI would know of it (core metadata, PEP 639)."""
    (file,) = wheel.glob("pycni-*.dist-info/METADATA")
    return message_from_string(file.read_text(encoding="utf-8"))


def test_it_brings_the_plugins_launcher_for_hosts_without_a_compiler(wheel: Path) -> None:
    """The very one, and it needs no Python."""
    executable = wheel / "pycni/cni/launcher" / launcher.PREBUILT.name
    executable.chmod(0o755)

    done = subprocess.run(
        [executable], env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True
    )

    assert json.loads(done.stdout)["supportedVersions"] == list(VERSIONS)
    assert launcher.MARKER.encode() in executable.read_bytes()
