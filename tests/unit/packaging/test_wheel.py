"""The wheel has what a node without compiler needs: objects of the sources beside them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from loader import clang
from loader.compile import PROGRAMS, compile_programs
from loader.errors import CompileError

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package `loader` of a wheel built from this tree."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", directory, PROJECT], check=True)
    (wheel,) = directory.glob("pycni-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory / "loader"


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
    assert all(objects.path(program).stat().st_size for program in PROGRAMS)


@pytest.mark.usefixtures("no_clang")
def test_its_objects_do_not_serve_sources_that_were_changed(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "changed.h").write_text("/* not what was compiled */\n")

    with pytest.raises(CompileError, match="no clang") as error:
        compile_programs(tmp_path, sources=tmp_path, prebuilt=installed / "bpf_objects")

    assert "does not hold objects of these sources" in error.value.details
    assert error.value.hint == "apt install clang"
