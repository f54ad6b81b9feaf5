# SPDX-License-Identifier: Apache-2.0
"""An image for another architecture: what differs, without a package that is fetched."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from image import __main__, build, emulator, later, proof, tree
from image.architectures import ALL, AMD64, ARM64, own
from pycni.errors import NoLauncher, PycniError
from vm.apt import Archive

NAME = "example/pycni:1"
(OTHER,) = set(ALL.values()) - {own()}


def program(machine: int) -> bytes:
    """The head of a program, elf(5)."""
    return struct.pack("<4s14xH", b"\x7fELF", machine)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with a command, an interpreter and the launcher of this machine."""
    root = tmp_path / "tree"
    ours = f"{tree.LAUNCHER}/launcher-{own().machine}"
    for name, content in (("usr/bin/python3", program(OTHER.elf)), (ours, program(own().elf)),
                          ("usr/bin/pycni", b"#!/usr/bin/python3 -I\nimport sys\n")):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def emulated(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The same tree; what stands for the emulator is a file."""
    (tmp_path / "qemu").write_text("an emulator")
    monkeypatch.setattr(emulator, "provide", lambda _: tmp_path / "qemu")
    return root


def trees(tmp_path: Path) -> dict[Any, Path]:
    for one in (AMD64, ARM64):
        (tmp_path / one.name).mkdir()
        (tmp_path / one.name / "machine").write_text(one.machine)
    return {one: tmp_path / one.name for one in (AMD64, ARM64)}


def read(archive: Path, descriptor: Any) -> bytes:
    with tarfile.open(archive) as layout:
        return layout.extractfile(f"blobs/{descriptor['digest'].replace(':', '/')}").read()


def test_a_machine_of_a_kind_that_there_is_knows_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in ALL.values():
        monkeypatch.setattr("platform.machine", lambda one=one: one.machine)
        assert own() == one


def test_an_image_for_two_is_one_name_that_leads_to_both(tmp_path: Path) -> None:
    built = build.pack_all(trees(tmp_path), tmp_path / "image.tar", name=NAME)

    with tarfile.open(built.archive) as layout:
        (entry,) = json.load(layout.extractfile("index.json"))["manifests"]
    assert entry["digest"] == built.digest
    assert entry["annotations"]["io.containerd.image.name"] == NAME
    index = json.loads(read(built.archive, entry))
    assert entry["mediaType"] == index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    found = {}
    for one in index["manifests"]:
        manifest = json.loads(read(built.archive, one))
        config = json.loads(read(built.archive, manifest["config"]))
        assert config["architecture"] == one["platform"]["architecture"]
        (descriptor,) = manifest["layers"]
        plain = gzip.decompress(read(built.archive, descriptor))
        with tarfile.open(fileobj=io.BytesIO(plain)) as layer:
            found[config["architecture"]] = layer.extractfile("machine").read().decode()
        assert descriptor["size"] <= built.compressed
        assert len(plain) <= built.unpacked
    assert found == {"amd64": "x86_64", "arm64": "aarch64"}


def test_each_of_the_two_can_be_unpacked(tmp_path: Path) -> None:
    built = build.pack_all(trees(tmp_path), tmp_path / "image.tar", name=NAME)

    for architecture in (AMD64, ARM64):
        (tmp_path / "found" / architecture.name).mkdir(parents=True)
        later.unpack(built.archive, tmp_path / "found" / architecture.name, architecture)
        machine = tmp_path / "found" / architecture.name / "machine"
        assert machine.read_text() == architecture.machine


def test_one_that_is_too_large_is_refused_whichever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trees(tmp_path)
    (found[ARM64] / "much").write_bytes(bytes(range(256)) * 4)
    monkeypatch.setattr(build, "LARGEST", 300)

    with pytest.raises(PycniError, match="more than"):
        build.pack_all(found, tmp_path / "image.tar", name=NAME)

    assert not (tmp_path / "image.tar").exists()


def test_lib64_is_there_only_where_the_c_library_has_something_in_it(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "usr/bin/python3").unlink()
    other = root.parent / "with"
    shutil.copytree(root, other)
    (other / "usr/lib64").mkdir()

    for one in (root, other):
        tree.finish(one)

    assert not (root / "lib64").is_symlink()
    assert (other / "lib64").readlink() == Path("usr/lib64")


def test_a_program_of_another_machine_is_refused(root: Path) -> None:
    (root / f"{tree.LAUNCHER}/launcher-{own().machine}").unlink()
    (root / "program.o").write_bytes(program(proof.BPF))
    (root / "short").write_bytes(proof.ELF)
    (root / "link").symlink_to("/proc/self/exe")
    proof.refuse_strangers(root, OTHER)

    with pytest.raises(PycniError, match=f"usr/bin/python3 is not for {own().name}") as caught:
        proof.refuse_strangers(root, own())

    assert str(OTHER.elf) in caught.value.details


def test_programs_of_another_architecture_are_started_by_the_emulator(emulated: Path) -> None:
    with emulator.placed(emulated, OTHER):
        binary = emulator.command(emulated, ["/usr/bin/python3", "-I"])
        script = emulator.command(emulated, ["/usr/bin/pycni", "--version"])
    after = emulator.command(emulated, ["/usr/bin/pycni", "--version"])

    assert binary == ["/emulator", "/usr/bin/python3", "-I"]
    assert script == ["/emulator", "/usr/bin/python3", "-I", "/usr/bin/pycni", "--version"]
    assert after == ["/usr/bin/pycni", "--version"]


def test_the_emulator_does_not_stay_in_the_tree(emulated: Path) -> None:
    before = sorted(emulated.rglob("*"))

    with pytest.raises(OSError, match="of the proof"), emulator.placed(emulated, OTHER):
        raise OSError("of the proof")

    assert sorted(emulated.rglob("*")) == before


def test_our_own_programs_need_no_emulator(root: Path) -> None:
    with emulator.placed(root, own()):
        assert not (root / emulator.PLACE).exists()


def test_an_emulator_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched: list[str] = []

    def unpack(scratch: Path, name: str) -> Path:
        fetched.append(name)
        (scratch / name).write_text("an emulator")
        return scratch / name

    monkeypatch.setattr(emulator, "_unpack", unpack)

    assert emulator.provide(OTHER) == emulator.provide(OTHER)
    assert fetched == [f"qemu-{OTHER.machine}"]
    assert emulator.provide(OTHER).read_text() == "an emulator"


def test_the_launcher_of_another_architecture_takes_the_place_of_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "compile_launcher", lambda compilers: " ".join(compilers).encode())

    tree.replace_launcher(root, OTHER)

    (launcher,) = (root / tree.LAUNCHER).iterdir()
    assert launcher.name == f"launcher-{OTHER.machine}"
    assert launcher.read_text() == f"{OTHER.machine}-linux-gnu-gcc"
    assert launcher.stat().st_mode & 0o111


def test_a_compiler_that_is_missing_is_named_with_its_packages(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(compilers: tuple[str, ...]) -> bytes:
        raise NoLauncher(f"there is no C compiler ({compilers[0]})", hint="install another")

    monkeypatch.setattr(tree, "compile_launcher", fail)

    with pytest.raises(PycniError, match=r"no launcher for arm64: .*aarch64-linux-gnu-gcc") as said:
        tree.replace_launcher(root, ARM64)

    assert said.value.hint == "apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    assert [path.name for path in (root / tree.LAUNCHER).iterdir()] == [f"launcher-{own().machine}"]
    assert AMD64.compiler_packages == ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross")


def test_modules_of_another_architecture_are_compiled_by_our_python(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the paths that they have in their own tree, which is back then, however it ends."""
    ours = tmp_path / "ours"
    (ours / "tmp").mkdir(parents=True)
    asked: list[tuple[str, ...]] = []

    def stand_in(where: Path, *command: str) -> None:
        assert where == ours
        assert (ours / command[-1][1:]).parents[2].samefile(ours / tree.ASIDE / "usr")
        asked.append(command)
        raise PycniError("it fails", hint="none")

    monkeypatch.setattr(tree, "inside", stand_in)

    with pytest.raises(PycniError, match="it fails"):
        tree.compile_modules(root, ours=ours)

    (command,) = asked
    at = command.index("-s")
    assert command[at : at + 4] == ("-s", "/tmp/other", "-p", "/")
    assert command[at + 4 :] == (f"/tmp/other/{tree.STANDARD}", f"/tmp/other/{tree.MODULES}")
    assert root.is_dir()
    assert list((ours / "tmp").iterdir()) == []


def test_apt_is_asked_for_packages_of_the_architecture(tmp_path: Path) -> None:
    configuration = Archive((tree.SUITE,), tmp_path, "arm64")._configuration()

    assert 'APT::Architecture "arm64";' in configuration
    assert 'APT::Architectures "arm64";' in configuration


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ([], [own()]),
        (["--architecture=arm64", "--architecture=amd64"], [AMD64, ARM64]),
        ([f"--architecture={OTHER.name}"], [OTHER]),
    ],
)
def test_what_was_asked_for_is_built_and_a_tree_of_ours_first(
    options: list[str], made: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tree, "make_wheel", lambda _: tmp_path / "wheel")
    done: list[tuple[str, Any]] = []

    def make(root: Path, _: Path, *, archive: Archive, architecture: Any) -> None:
        assert archive.architecture == architecture.name
        root.mkdir()
        done.append(("make", architecture))

    def compile_modules(root: Path, *, ours: Path | None) -> None:
        assert (ours is None) == (root.name == own().name)
        done.append(("compile", ALL[root.name]))

    monkeypatch.setattr(tree, "make", make)
    monkeypatch.setattr(tree, "compile_modules", compile_modules)
    monkeypatch.setattr(
        proof, "prove", lambda _, architecture: done.append(("prove", architecture))
    )
    output = tmp_path / "image.tar"

    result = CliRunner().invoke(__main__.main, ["build", f"--output={output}", *options])

    assert result.exit_code == 0, result.output
    assert done[:2] == [("make", own()), ("compile", own())]
    assert [one for what, one in done if what == "prove"] == made
    with tarfile.open(output) as layout:
        (entry,) = json.load(layout.extractfile("index.json"))["manifests"]
    of = json.loads(read(output, entry)).get("manifests", [entry])
    assert [one["platform"]["architecture"] for one in of] == [one.name for one in made]
