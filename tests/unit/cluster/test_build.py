# SPDX-License-Identifier: Apache-2.0
"""The build, with a program in the place of Go that writes what it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import build, golang, recipe
from cluster.containerd import RUNC, Runc
from cluster.recipe import CLUSTER, COMPONENTS, Kubernetes
from pycni.errors import NotAvailable, PycniError
from support.waiting import wait_until

KUBERNETES = Kubernetes("1.37.2")
FAKE_GO = """#!/bin/sh
# downloads are in $FAKE; a build writes its package's name to what follows -o
echo "$*" >>"$FAKE/calls"
case $1 in
mod)
    [ ! -e "$FAKE/refused" ] || { cat "$FAKE/refused"; exit 1; }
    printf '{"Dir": "%s", "GoMod": "%s"}' "$FAKE/source" "$FAKE/source/go.mod" ;;
list) printf 'one\\ntwo\\n' ;;
*)
    while [ "$1" != -o ]; do shift; done
    if [ -e "$FAKE/endless" ]; then
        trap 'touch "$FAKE/ended"; exit 1' INT
        echo "$3" >&2
        while :; do sleep 0.05; done
    fi
    [ "$3" != "$(cat "$FAKE/broken")" ] || { echo "$3 does not compile" >&2; exit 1; }
    echo "$3" >&2
    echo "$3" >"$2"
    ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its directory; `broken` there holds the package that does not compile."""
    source = tmp_path / "fake/source"
    porter = source / "test/images/agnhost/porter"
    porter.mkdir(parents=True)
    (source / "test/images/agnhost/VERSION").write_text("2.66.1\n")
    (source / "go.mod").write_text("module k8s.io/kubernetes\n")
    (source / "go.sum").touch()
    for name in ("localhost.crt", "localhost.key"):
        (porter / name).touch()
    (tmp_path / "fake/broken").touch()
    go = tmp_path / "fake/go"
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE", str(go.parent))
    monkeypatch.setattr(golang, "provide", lambda *_: go)
    return go.parent


def builds(fake: Path) -> list[str]:
    """The packages that Go was asked for, in order."""
    calls = (fake / "calls").read_text().splitlines() if (fake / "calls").exists() else []
    return [call.split()[-1] for call in calls if call.startswith("build ")]


def test_all_programs_are_built_and_kube_has_its_names(fake: Path) -> None:
    told: list[str] = []

    programs = build.provide(KUBERNETES, CLUSTER, tell=told.append)

    assert builds(fake) == [part.package for part in CLUSTER]
    assert {(programs / name).resolve().name for name in COMPONENTS} == {"kube"}
    assert (programs / "localhost.crt").exists()
    assert any("is built" in line for line in told)


def test_a_second_run_builds_nothing(fake: Path) -> None:
    build.provide(KUBERNETES, CLUSTER, tell=lambda _: None)
    (fake / "calls").unlink()

    build.provide(KUBERNETES, CLUSTER, tell=pytest.fail)

    assert builds(fake) == []


def test_a_build_that_failed_goes_on_where_it_was(fake: Path) -> None:
    (fake / "broken").write_text(recipe.AGNHOST)
    with pytest.raises(PycniError, match="cannot be built") as error:
        build.provide(KUBERNETES, CLUSTER, tell=lambda _: None)
    (fake / "broken").write_text("")
    (fake / "calls").unlink()

    build.provide(KUBERNETES, CLUSTER, tell=lambda _: None)

    assert "does not compile" in error.value.details
    assert builds(fake) == [recipe.AGNHOST, "./dns"]


def test_a_record_that_nobody_can_read_means_to_build_again(fake: Path) -> None:
    programs = build.provide(KUBERNETES, CLUSTER, tell=lambda _: None)
    (fake / "calls").unlink()
    for text in ("{", json.dumps([])):
        (programs.parent / "built.json").write_text(text)
        build.provide(KUBERNETES, CLUSTER, tell=lambda _: None)

    assert len(builds(fake)) == 2 * len(CLUSTER)


@pytest.mark.usefixtures("fake")
def test_progress_is_told_while_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TELL_SECONDS", -1.0)
    told: list[str] = []

    build.provide(KUBERNETES, CLUSTER, tell=told.append)

    assert any(line.startswith("kube: 1 compiled, after ") for line in told)


def test_a_build_that_is_interrupted_leaves_no_compiler(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "TELL_SECONDS", -1.0)
    (fake / "endless").touch()

    def tell(line: str) -> None:
        if "compiled" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.provide(KUBERNETES, CLUSTER, tell=tell)

    wait_until((fake / "ended").exists, "the compiler has ended")


def test_a_version_that_cannot_be_had_is_said_with_gos_words(fake: Path) -> None:
    (fake / "refused").write_text('{"Error": "unknown revision v1.37.2"}')

    with pytest.raises(NotAvailable, match=r"Kubernetes 1\.37\.2 cannot be had") as error:
        build.provide(KUBERNETES, CLUSTER, tell=lambda _: None)

    assert error.value.details == "unknown revision v1.37.2"
    assert "go list -m -versions k8s.io/kubernetes" in error.value.hint
    assert builds(fake) == []


def test_words_of_go_that_are_no_document_are_shown(fake: Path) -> None:
    (fake / "refused").write_text("out of memory")

    with pytest.raises(PycniError, match="go mod failed") as error:
        build.provide(KUBERNETES, CLUSTER, tell=lambda _: None)

    assert error.value.details == "out of memory"


def test_what_the_computer_lacks_is_named_with_its_packages(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runc, "needs", {"sh": "dash", "no-such": "one", "/no/such.h": "two"})

    with pytest.raises(NotAvailable, match=r"needs no-such, /no/such\.h") as error:
        build.provide(Runc("1.5.2"), RUNC, tell=pytest.fail)

    assert error.value.hint == "apt-get install one two"
    assert not (fake / "calls").exists()


def test_products_lie_apart_and_share_what_is_compiled(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runc, "needs", {})
    kube, runc = (build.provide(product, parts, tell=lambda _: None)
                  for product, parts in ((KUBERNETES, CLUSTER), (Runc("1.5.2"), RUNC)))  # fmt: skip

    assert runc.relative_to(fake.parent / "cache") == Path("pycni/runc/1.5.2/bin")
    assert kube.parent.parent.name == "kubernetes"
    assert (runc / "runc").read_text().strip() == RUNC[0].package
    called = (fake / "calls").read_text().splitlines()[-1]
    assert "-tags=seccomp,urfave_cli_no_docs" in called
