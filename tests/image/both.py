# SPDX-License-Identifier: Apache-2.0
"""An image for amd64 and arm64: `make test-image`.

Not collected with the other tests: it needs compiler and emulator for the other architecture, and
takes longer to build.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pycni
from image import build, emulator, later, proof, tree
from image.architectures import ALL, AMD64, ARM64, Architecture, own
from image.build import LARGEST, Built
from image.host import Change, Host, running
from loader import clang
from loader.places import OBJECTS
from pycni.cni.plugin import VERSIONS
from pycni.lab.cluster import Lab
from support.oci import compress, write_layer, write_platforms

(OTHER,) = set(ALL.values()) - {own()}
NO_MOUNTS = Change(args=["--version"], without=("cni-bin", "cni-conf", "tmp"))
SECTION_HEADER = struct.Struct("<IIQQQQ24x")
NOBITS = 8
"""elf(5): a section that has no bytes in the file."""


@pytest.fixture(scope="session")
def both() -> Built:
    """The image of this tree for both."""
    return build.provide(tuple(ALL.values()))


@pytest.fixture(scope="session")
def other_root(both: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree of the other architecture, with the emulator."""
    root = tmp_path_factory.mktemp("other")
    later.unpack(both.archive, root, OTHER)
    with emulator.placed(root, OTHER):
        yield root


@pytest.fixture(scope="session")
def node(both: Built, lab: Lab) -> Iterator[Host]:
    """A host that imported the image."""
    with running(lab.layout.nodes[0], both.name, both.archive) as made:
        yield made


def document(layout: tarfile.TarFile, name: str) -> Any:
    file = layout.extractfile(name)
    assert file is not None
    return json.load(file)


def sections(program: Path) -> dict[str, bytes]:
    """The sections of an ELF file of 64 bits, but for those for debuggers (DWARF)."""
    content = program.read_bytes()
    (start,) = struct.unpack_from("<Q", content, 40)
    number, names_at = struct.unpack_from("<HH", content, 60)
    headers = [
        SECTION_HEADER.unpack_from(content, start + SECTION_HEADER.size * index)
        for index in range(number)
    ]
    at, size = headers[names_at][4:]
    names = content[at : at + size]
    found = {}
    for name, kind, _, _, offset, length in headers:
        title = names[name : names.index(b"\0", name)].decode()
        if ".debug" not in title and title not in (".strtab", ".symtab"):
            found[title] = b"" if kind == NOBITS else content[offset : offset + length]
    return found


def test_there_is_one_name_for_both_and_each_is_small(both: Built) -> None:
    with tarfile.open(both.archive) as layout:
        (entry,) = document(layout, "index.json")["manifests"]
        index = document(layout, f"blobs/{entry['digest'].replace(':', '/')}")
        manifests = [
            document(layout, f"blobs/{one['digest'].replace(':', '/')}")
            for one in index["manifests"]
        ]

    assert [one["platform"]["architecture"] for one in index["manifests"]] == ["amd64", "arm64"]
    sizes = [one["layers"][0]["size"] for one in manifests]
    assert max(sizes) == both.compressed <= LARGEST


def test_each_has_what_its_machine_can_run_only(both: Built, tmp_path: Path) -> None:
    for architecture in (AMD64, ARM64):
        root = tmp_path / architecture.name
        root.mkdir()
        later.unpack(both.archive, root, architecture)
        proof.refuse_strangers(root, architecture)
        (launcher,) = (root / tree.LAUNCHER).glob("launcher-*")
        assert launcher.name == f"launcher-{architecture.machine}"


def test_the_command_and_the_plugin_of_the_other_run(other_root: Path) -> None:
    said = tree.inside(other_root, "/usr/bin/python3", "-I", "-m", "pycni", "--version")
    machine = tree.inside(
        other_root, "/usr/bin/python3", "-I", "-c", "import platform; print(platform.machine())"
    )
    launcher = f"/{tree.LAUNCHER}/launcher-{OTHER.machine}"
    asked = subprocess.run(
        ["chroot", other_root, *emulator.command(other_root, [launcher])],
        env=os.environ | {"CNI_COMMAND": "VERSION"}, input=b'{"cniVersion": "1.0.0"}',
        capture_output=True, check=True,
    )  # fmt: skip

    assert pycni.__version__ in said
    assert machine.strip() == OTHER.machine
    assert json.loads(asked.stdout)["supportedVersions"] == list(VERSIONS)


def test_bytecode_of_the_other_is_taken_as_it_is(other_root: Path) -> None:
    """By the place of its sources, and with no look at them."""
    use = (
        "from importlib.util import MAGIC_NUMBER\n"
        "from pathlib import Path\n"
        "from pycni import names\n"
        "head = Path(names.__cached__).read_bytes()[:8]\n"
        "assert head == MAGIC_NUMBER + b'\\1\\0\\0\\0', head\n"  # PEP 552: unchecked
        "print(names.host_ifname.__code__.co_filename)\n"
    )

    said = tree.inside(other_root, "/usr/bin/python3", "-I", "-c", use)

    assert said.strip() == f"/{tree.MODULES}/pycni/names.py"


def test_programs_are_the_same_with_the_headers_of_either(tmp_path: Path) -> None:
    """What the kernel loads: code, data and types (BTF). Debuggers are told other headers."""
    ours = clang.find_clang()
    theirs = replace(ours, asm=Path(f"/usr/{OTHER.machine}-linux-gnu/include"))
    assert (theirs.asm / "asm/types.h").exists()

    for name, compiler in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        clang.compile_all(compiler, tree.PROJECT / "bpf", OBJECTS, tmp_path / name)

    for program in OBJECTS:
        found = sections(tmp_path / "ours" / f"{program}.o")
        assert {".BTF", ".maps"} <= found.keys()
        assert found == sections(tmp_path / "theirs" / f"{program}.o")


def test_containerd_takes_its_own_of_the_two_and_runs_it(node: Host) -> None:
    done = node.run("install", NO_MOUNTS)

    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert pycni.__version__ in done.stdout.decode()


def test_containerd_can_be_given_the_other_one(node: Host, both: Built) -> None:
    """As for a registry that a machine of either kind fills."""
    platforms = "--all-platforms", "--no-unpack"

    done = node.ctr("images", "import", *platforms, both.archive)
    listed = node.ctr("images", "list", f"name=={both.name}")

    assert done.returncode == 0, done.stderr.decode()
    assert "linux/amd64,linux/arm64" in listed.stdout.decode()


def test_a_node_of_neither_is_told_so(node: Host, tmp_path: Path) -> None:
    root, parts = tmp_path / "root", []
    root.mkdir()
    for name in ("s390x", "riscv64"):
        layer = tmp_path / name
        write_layer(layer, root)
        packed = compress(layer)
        stranger = Architecture(name, name, 0)
        parts.append((build.image("pycni.dev/pycni:strange", stranger), layer, packed))
    write_platforms(tmp_path / "image.tar", parts)

    done = node.ctr("images", "import", tmp_path / "image.tar")

    assert done.returncode != 0
    assert "no match for platform in manifest" in done.stderr.decode()
