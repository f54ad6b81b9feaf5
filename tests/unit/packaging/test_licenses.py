# SPDX-License-Identifier: Apache-2.0
"""Every source file says under which terms it may be used, and the texts of these are here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
LINES = 5
"""Where the line must be: a `#!` and a type's comment may come first."""

SOURCES = {".py", ".c", ".h", ".sh", ".toml", ".service", ".yml", ".yaml", ".conf"}
NAMES = {"Makefile", "Vagrantfile", ".gitignore", ".clang-format", ".clang-tidy"}
APACHE, GPL, LGPL = "Apache-2.0", "GPL-2.0-only", "LGPL-2.1-or-later"
"""The last one is of the C library that the wheel's launcher is linked with."""


def source_files() -> list[Path]:
    """The tracked files that a comment can be in, scripts without a suffix too."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("this tree is no git checkout")
    files = [PROJECT / name for name in done.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and is_source(file)]


def is_source(file: Path) -> bool:
    if file.suffix in SOURCES or file.name in NAMES:
        return True
    return not file.suffix and file.read_bytes()[:2] == b"#!"


def is_bpf(file: Path) -> bool:
    """Whether C is part of a BPF program: the kernel lets only the GPL's call its helpers."""
    if file.suffix not in (".c", ".h"):
        return False
    return "bpf" in file.relative_to(PROJECT).parts or b'SEC("' in file.read_bytes()


def license_of(file: Path) -> str:
    mark = "SPDX-License-Identifier: "
    for line in file.read_text(encoding="utf-8").splitlines()[:LINES]:
        if mark in line:
            return line.partition(mark)[2].removesuffix("*/").strip()
    return ""


def test_every_source_file_names_its_license() -> None:
    wanted = {
        str(file.relative_to(PROJECT)): GPL if is_bpf(file) else APACHE
        for file in source_files()
        if file.stat().st_size
    }

    found = {name: license_of(PROJECT / name) for name in wanted}

    assert len(found) > 100
    assert found == wanted


@pytest.mark.parametrize("name", [APACHE, GPL, LGPL])
def test_the_text_of_each_license_is_here(name: str) -> None:
    text = (PROJECT / "LICENSES" / f"{name}.txt").read_text(encoding="utf-8")

    title = {
        APACHE: "Apache License",
        GPL: "GNU GENERAL PUBLIC LICENSE",
        LGPL: "GNU LESSER GENERAL PUBLIC LICENSE",
    }[name]
    assert title in text[:200]
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_license_that_is_named_has_its_text() -> None:
    named = {license_of(file) for file in source_files()} - {""}

    assert named <= {path.stem for path in (PROJECT / "LICENSES").iterdir()}
