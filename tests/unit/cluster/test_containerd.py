# SPDX-License-Identifier: Apache-2.0
"""A containerd that is built: its recipe, its configuration, and the runc that belongs to it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cluster import build, commands, containerd, runtime
from cluster.containerd import CONTAINERD, Containerd, Runc
from cluster.images import PAUSE
from cluster.layout import address
from cluster.product import Part, Product
from pycni.errors import PycniError
from unit.cluster.clusters import drawn

VERSION = "2.4.2"
NODE = drawn().workers[0]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def read(version: str) -> dict[str, Any]:
    """The configuration of a node with that containerd."""
    return tomllib.loads(runtime.of(drawn(containerd=version)).configuration(NODE))


@pytest.mark.parametrize(
    "version", ["2", "2.4", "v2.4.2", "2.0.5", "1.7.20", "2.4.2-rc.1", "2.4.2/..", "3.0.0", ""]
)
def test_what_is_no_version_or_too_old_is_refused(version: str) -> None:
    with pytest.raises(PycniError, match=r"no version of containerd 2\.1 or newer") as error:
        Containerd(version)

    assert f"--containerd {containerd.EXAMPLE}" in error.value.hint


@pytest.mark.parametrize("version", ["2.1.0", "2.4.2", "2.10.0"])
def test_a_version_is_taken(version: str) -> None:
    assert Containerd(version).version == version


def test_our_module_has_the_versions_that_containerd_chose() -> None:
    ours = Containerd(VERSION).go_mod(f"module {containerd.PACKAGE}\n\ngo 1.26.6\n")

    assert ours.startswith("module pycni/cluster\n")
    assert "go 1.26.6" in ours
    assert f"require {containerd.PACKAGE} v{VERSION}" in ours


def test_containerd_says_its_version() -> None:
    flags = Containerd(VERSION).link_flags(CONTAINERD[0], None)

    assert f"-X {containerd.PACKAGE}/version.Version=v{VERSION}" in flags


def test_what_it_wants_of_runc_is_kept_beside_its_programs(tmp_path: Path) -> None:
    stated = tmp_path / "source/script/setup/runc-version"
    stated.parent.mkdir(parents=True)
    stated.write_text("v1.5.2\n")

    Containerd(VERSION).accompany(tmp_path / "source", tmp_path)

    assert containerd.runc_of(tmp_path) == Runc("1.5.2")


def test_one_that_lost_its_files_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PycniError, match="is damaged") as error:
        containerd.runc_of(tmp_path / "bin")

    assert error.value.hint.endswith(f"rm -r {tmp_path}")


@pytest.mark.parametrize("stated", ["", "main", "v1.5.0-rc.1", "0123456789abcdef"])
def test_a_runc_that_is_no_release_is_said(tmp_path: Path, stated: str) -> None:
    (tmp_path / containerd.TESTED_WITH).write_text(stated)

    with pytest.raises(PycniError, match="a runc that is no release"):
        containerd.runc_of(tmp_path)


def test_sources_without_a_version_of_runc_are_said(tmp_path: Path) -> None:
    with pytest.raises(PycniError, match="do not say which runc"):
        Containerd(VERSION).accompany(tmp_path, tmp_path)


def test_debians_configuration_can_be_read() -> None:
    document = read("")

    cri = document["plugins"]["io.containerd.grpc.v1.cri"]
    assert document["version"] == 2
    assert cri["sandbox_image"] == PAUSE
    assert cri["cni"] == {"bin_dir": commands.CNI_BIN, "conf_dir": commands.CNI_CONF}
    assert cri["stream_server_address"] == address(NODE)


def test_the_configuration_of_one_that_was_built_names_what_was_built(cache: Path) -> None:
    document = read(VERSION)

    programs = cache / f"pycni/containerd/{VERSION}/bin"
    plugins = document["plugins"]
    made = plugins["io.containerd.cri.v1.runtime"]
    runc = made["containerd"]["runtimes"]["runc"]
    assert document["version"] == 3
    assert runc["runtime_path"] == str(programs / "containerd-shim-runc-v2")
    assert runc["options"]["BinaryName"] == str(programs / "runc")
    assert made["cni"] == {"bin_dirs": [commands.CNI_BIN], "conf_dir": commands.CNI_CONF}
    assert plugins["io.containerd.cri.v1.images"]["pinned_images"] == {"sandbox": PAUSE}
    assert plugins["io.containerd.grpc.v1.cri"] == {"stream_server_address": address(NODE)}


def test_its_own_programs_are_run(cache: Path) -> None:
    programs = cache / f"pycni/containerd/{VERSION}/bin"
    built, packaged = runtime.of(drawn(containerd=VERSION)), runtime.of(drawn())

    assert built.daemon(Path("config"))[0] == programs / "containerd"
    assert built.ctr("version")[0] == programs / "ctr"
    assert (packaged.daemon(Path("config"))[0], packaged.ctr("version")[0]) == ("containerd", "ctr")


def test_its_runc_is_built_and_lies_beside_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def provide(product: Product, parts: tuple[Part, ...], **_: object) -> Path:
        asked.append(str(product))
        programs = build.directory(product) / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        (programs / containerd.TESTED_WITH).write_text("v1.5.2")
        for part in parts:
            (programs / part.name).touch()
        return programs

    monkeypatch.setattr(runtime.build, "provide", provide)
    for _ in range(2):
        runtime.provide(VERSION, print)

    assert asked == [f"containerd {VERSION}", "runc 1.5.2"] * 2
    link = cache / f"pycni/containerd/{VERSION}/bin/runc"
    assert link.resolve() == cache / "pycni/runc/1.5.2/bin/runc"


def test_for_debians_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.build, "provide", pytest.fail)

    runtime.provide("", pytest.fail)
