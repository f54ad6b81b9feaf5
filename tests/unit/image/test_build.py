# SPDX-License-Identifier: Apache-2.0
"""The image: its tree, its archive and its cache, without a package that is fetched."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from image import build, proof, tree
from image.architectures import AMD64, ARM64, own
from pycni.errors import PycniError

NAME = "example/pycni:1"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree as packages and wheels leave it."""
    root = tmp_path / "tree"
    for file in ("usr/bin/python3.13", "usr/share/doc/libc6/copyright", "usr/share/doc/libc6/news",
                 "usr/share/man/man1/a.1", f"{LIBRARIES}/libbcc.so.0.26.0",
                 f"{LIBRARIES}/libbcc_bpf.so.0.26.0", f"{tree.MODULES}/pycni/cli.py",
                 f"{tree.MODULES}/bin/pycni", f"{tree.STANDARD}/lib-dynload/readline.so",
                 f"{tree.MODULES}/pycni-1.dist-info/direct_url.json",
                 f"{tree.MODULES}/pycni-1.dist-info/METADATA"):  # fmt: skip
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)
    (root / "usr/bin/python3.13").chmod(0o4700)
    (root / "etc").mkdir(mode=0o700)
    return root


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {one.name: opened.extractfile(one).read() for one in opened.getmembers()}


def manifest(archive: Path) -> tuple[str, Any, Any, bytes]:
    """The digest, the manifest, the configuration, and the layer as it is stored."""
    found = contents(archive)
    (entry,) = json.loads(found["index.json"])["manifests"]

    def blob(descriptor: Any) -> bytes:
        content = found[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
        assert len(content) == descriptor["size"]
        return content

    document = json.loads(blob(entry))
    (layer,) = document["layers"]
    return entry["digest"], document, json.loads(blob(document["config"])), blob(layer)


def test_what_nobody_needs_is_left_out_and_what_scripts_would_make_is_there(root: Path) -> None:
    tree.finish(root)

    for gone in ("usr/share/man", f"{LIBRARIES}/libbcc.so.0.26.0", f"{tree.MODULES}/bin",
                 "usr/share/doc/libc6/news", f"{tree.STANDARD}/lib-dynload/readline.so",
                 f"{tree.MODULES}/pycni-1.dist-info/direct_url.json"):  # fmt: skip
        assert not (root / gone).exists(), gone
    for there in ("usr/share/doc/libc6/copyright", f"{LIBRARIES}/libbcc_bpf.so.0.26.0",
                  f"{tree.MODULES}/pycni-1.dist-info/METADATA", "host/proc/sys/net", "etc/passwd",
                  "usr/bin/pycni"):  # fmt: skip
        assert (root / there).exists(), there
    assert (root / "usr/bin/python3").readlink() == Path("python3.13")


def test_modes_are_the_same_whatever_they_were_and_nothing_is_setuid(root: Path) -> None:
    tree.finish(root)

    modes = {
        str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode)
        for path in root.rglob("*")
        if not path.is_symlink()
    }
    assert modes.pop("tmp") == 0o1777
    assert modes["usr/bin/python3.13"] == modes["usr/bin/pycni"] == modes["etc"] == 0o755
    assert modes["etc/passwd"] == 0o644
    assert set(modes.values()) == {0o755, 0o644}


def test_the_same_tree_has_the_same_digest_whenever_and_wherever(
    root: Path, tmp_path: Path
) -> None:
    tree.finish(root)
    first = build.pack(root, tmp_path / "first.tar", name=NAME)
    for path in root.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    before = os.umask(0o077)
    try:
        second = build.pack(root, tmp_path / "second.tar", name=NAME)
    finally:
        os.umask(before)

    assert first.digest == second.digest
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    (root / "etc/passwd").write_text("other")
    assert build.pack(root, tmp_path / "third.tar", name=NAME).digest != first.digest


def test_the_layer_is_compressed_and_known_by_its_content(root: Path, tmp_path: Path) -> None:
    tree.finish(root)

    built = build.pack(root, tmp_path / "image.tar", name=NAME)

    digest, document, config, layer = manifest(built.archive)
    assert digest == built.digest
    assert document["layers"][0]["mediaType"].endswith(".layer.v1.tar+gzip")
    assert len(layer) == built.compressed
    plain = gzip.decompress(layer)
    assert len(plain) == built.unpacked
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
    assert config["architecture"] == "amd64"
    assert config["config"]["Entrypoint"] == ["/usr/bin/pycni"]


def test_members_are_sorted_and_owned_by_root_without_a_time(root: Path, tmp_path: Path) -> None:
    tree.finish(root)
    built = build.pack(root, tmp_path / "image.tar", name=NAME)

    (tmp_path / "layer").write_bytes(gzip.decompress(manifest(built.archive)[3]))
    with tarfile.open(tmp_path / "layer") as layer:
        members = layer.getmembers()
    assert {(one.uid, one.gid, one.mtime, one.uname) for one in members} == {(0, 0, 0, "")}
    tops = [one.name for one in members if "/" not in one.name]
    assert tops == sorted(tops)


def test_an_image_that_is_too_large_is_refused_and_leaves_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "LARGEST", 100)
    output = tmp_path / "out" / "image.tar"
    output.parent.mkdir()

    with pytest.raises(PycniError, match="more than"):
        build.pack(root, output, name=NAME)

    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["usr/bin/clang-14", "usr/bin/cc", "usr/lib/libLLVM-14.so.1"])
def test_a_compiler_in_the_tree_is_refused(root: Path, name: str) -> None:
    proof.refuse_compilers(root)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).touch()

    with pytest.raises(PycniError, match=f"compiler in the image: {name}"):
        proof.refuse_compilers(root)


def test_libraries_are_elf_files_and_no_links(root: Path) -> None:
    library = root / LIBRARIES / "libreal.so.1.2"
    library.write_bytes(b"\x7fELF".ljust(20, b"."))
    library.with_name("libreal.so.1").symlink_to(library.name)

    assert proof.libraries(root) == [f"/{LIBRARIES}/libreal.so.1.2"]


def test_a_program_that_fails_in_the_tree_is_told_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(PycniError, match="/usr/bin/python3 -I fails in the image") as caught:
        tree.inside(tmp_path, "/usr/bin/python3", "-I")

    assert "chroot" in caught.value.details
    assert "PACKAGES" in caught.value.hint


def test_what_a_program_in_the_tree_writes_has_the_same_modes_whatever_ours_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytecode: the container cannot mend it."""
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **how: run(["sh", "-c", "umask"], **how))
    before = os.umask(0o077)
    try:
        said = tree.inside(tmp_path, "/usr/bin/python3")
    finally:
        os.umask(before)

    assert said.strip() == "0022"


def test_a_pip_that_fails_is_told_with_its_words() -> None:
    with pytest.raises(PycniError, match="pip no-command failed") as caught:
        tree.pip("no-command")

    assert "unknown command" in caught.value.details


def test_what_proves_a_tree_can_run_in_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(proof, "inside", lambda _, *command: asked.append(command))

    proof.prove(root)

    load, use, version, launcher = asked
    compile(load[-1], "load", "exec")
    compile(use[-1], "use", "exec")
    assert version == ("/usr/bin/pycni", "--version")
    assert launcher == (f"/{tree.LAUNCHER}/launcher-{own().machine}",)


def test_wheels_are_named_by_their_digests() -> None:
    lines = [line for line in tree.REQUIREMENTS.read_text().splitlines() if line[:1] != "#"]

    assert len(lines) > 5
    assert all("==" in line and " --hash=sha256:" in line for line in lines)
    compiled = [line.partition("==")[0] for line in lines if line.count(" --hash=sha256:") == 2]
    assert compiled == ["pydantic-core", "pyyaml"], "one for each architecture"


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """A cache of its own; the archives that were built, which are empty files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made: list[Path] = []

    def stand_in(output: Path, **_: object) -> build.Built:
        output.write_text("")
        made.append(output)
        return build.Built(output, NAME, "sha256:1", 2, 3)

    monkeypatch.setattr(build, "build", stand_in)
    return made


def test_an_image_of_the_same_sources_is_built_once(
    cached: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build.provide()
    assert build.provide() == first
    assert cached == [first.archive]

    monkeypatch.setattr(build, "sources_digest", lambda: "of others")
    build.provide()
    assert len(cached) == 2
    first.archive.unlink()
    build.provide()
    assert len(cached) == 3


def test_an_image_for_two_is_kept_beside_the_one_for_this_machine(cached: list[Path]) -> None:
    one, two = build.provide(), build.provide((ARM64, AMD64))

    assert one.archive != two.archive
    assert build.provide() == one
    assert build.provide((AMD64, ARM64)) == two
    assert cached == [one.archive, two.archive]


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"of": "x"}', "null"])
def test_a_record_that_cannot_be_read_is_none(cached: list[Path], record: str) -> None:
    where = build.provide().archive.parent
    (where / build.RECORD).write_text(record)

    build.provide()

    assert len(cached) == 2


def test_each_source_counts(tmp_path: Path) -> None:
    for name in (*build.ALSO, *(f"{one}/file" for one in build.MADE_OF)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    before = build.sources_digest(tmp_path)

    (tmp_path / "pycni/__pycache__").mkdir()
    (tmp_path / "pycni/__pycache__/x.pyc").write_text("made of others")
    assert build.sources_digest(tmp_path) == before
    (tmp_path / "pycni/file").write_text("changed")
    assert build.sources_digest(tmp_path) != before
