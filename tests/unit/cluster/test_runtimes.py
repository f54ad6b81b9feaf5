# SPDX-License-Identifier: Apache-2.0
"""The build of a current runtime, with a program in the place of Go."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import golang, runtimes
from cluster.runtimes import CONTAINERD, MODULES, RUNC
from pycni.errors import PycniError

FAKE_GO = """#!/bin/sh
echo "$CGO_ENABLED $PKG_CONFIG_PATH $*" >>"$FAKE/calls"
case $1 in
mod) printf '{"Dir": "%s", "GoMod": "%s"}' "$FAKE" "$FAKE/go.mod" ;;
build)
    while [ "$1" != -o ]; do shift; done
    case $3 in *$(cat "$FAKE/broken")) echo "$3 does not compile" >&2; exit 1 ;; esac
    echo "$3" >"$2"
    ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its directory; what ends as the text in `broken` does not compile."""
    directory = tmp_path / "fake"
    directory.mkdir()
    (directory / "go.mod").write_text("module theirs\n\ngo 1.26\n")
    (directory / "go.sum").write_text("sums\n")
    (directory / "broken").write_text("nothing")
    go = directory / "go"
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE", str(directory))
    monkeypatch.setattr(golang, "provide", lambda *_: go)
    monkeypatch.setattr(runtimes, "_seccomp", lambda _: {"PKG_CONFIG_PATH": "/headers"})
    return directory


def calls(fake: Path) -> list[str]:
    return (fake / "calls").read_text().splitlines()


def test_every_program_is_built_once(fake: Path) -> None:
    told: list[str] = []
    programs = runtimes.provide(tell=told.append)
    before = calls(fake)

    assert runtimes.provide(tell=told.append) == programs
    names = {name for module in MODULES for name in module.packages}
    assert {path.name for path in programs.iterdir()} == names
    assert calls(fake) == before
    assert len(told) == len(MODULES)


def test_only_what_has_c_is_compiled_with_it(fake: Path) -> None:
    runtimes.provide(tell=lambda _: None)

    built = [line for line in calls(fake) if " build " in line]
    assert {line.startswith("1 /headers ") for line in built if RUNC.path in line} == {True}
    assert {line.startswith("0  ") for line in built if CONTAINERD.path in line} == {True}


def test_a_build_that_fails_is_told_and_leaves_what_was_built(fake: Path) -> None:
    (fake / "broken").write_text("ctr")

    with pytest.raises(PycniError, match="cannot be built") as raised:
        runtimes.provide(tell=lambda _: None)
    assert "ctr does not compile" in raised.value.details

    (fake / "broken").write_text("nothing")
    assert (runtimes.provide(tell=lambda _: None) / "ctr").exists()


def test_our_module_has_the_versions_that_theirs_chose() -> None:
    theirs = "module github.com/x/y\n\ngo 1.26\n\nrequire z v1.2.3\n"

    ours = runtimes.go_mod(theirs, RUNC)

    assert ours.startswith("module pycni/runtime\n")
    assert "require z v1.2.3" in ours
    assert f"require {RUNC.path} v{RUNC.version}" in ours


def test_a_link_to_the_shared_library_leads_to_the_computers(tmp_path: Path) -> None:
    directory = tmp_path / "usr/lib"
    directory.mkdir(parents=True)
    link = directory / "libseccomp.so"
    link.symlink_to("libseccomp.so.2.5.4")

    runtimes._point_at_installed(tmp_path)

    assert link.readlink() == Path("/usr/lib/libseccomp.so.2.5.4")
