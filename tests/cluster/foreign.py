# SPDX-License-Identifier: Apache-2.0
"""Images of another architecture: one that says so, and one that only has such programs."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from cluster import runtime
from cluster.layout import Cluster
from cluster.machine import Machine
from pycni.lab.layout import LabNode
from support.oci import Image, write_archive, write_layer

ARCHITECTURE = "arm64"
NAMED = "pycni.dev/pycni:of-another-architecture"
"""One that says in its configuration what it is for."""
UNNAMED = "pycni.dev/pycni:with-programs-of-another"
"""One that says nothing of it."""
PROGRAM = "/usr/bin/pycni"
EXECUTABLE, AARCH64 = 2, 183
"""Of ELF: `e_type` and `e_machine` (elf(5))."""


def image_says(cluster: Cluster, node: LabNode) -> str:
    """What the runtime's client says when a node shall import the image that says what it is for;
    empty if it takes it. Raises PycniError."""
    with tempfile.TemporaryDirectory(dir=cluster.directory) as directory:
        archive = write(Path(directory), NAMED, architecture=ARCHITECTURE)
        command = runtime.of(cluster).ctr("images", "import", archive)
        done = Machine(node).run(command, check=False)
    return f"{done.stdout}\n{done.stderr}" if done.returncode else ""


def give(cluster: Cluster, node: LabNode) -> None:
    """Import the other one. Raises PycniError."""
    with tempfile.TemporaryDirectory(dir=cluster.directory) as directory:
        archive = write(Path(directory), UNNAMED)
        Machine(node).run(runtime.of(cluster).ctr("images", "import", archive))


def take(cluster: Cluster, node: LabNode) -> None:
    """Remove both, as far as they are there. Raises PycniError."""
    for name in (NAMED, UNNAMED):
        Machine(node).run(runtime.of(cluster).ctr("images", "remove", name), check=False)


def write(directory: Path, name: str, *, architecture: str = "") -> Path:
    """An archive of an image whose program is of another architecture."""
    tree, layer = directory / "tree", directory / "layer"
    program = tree / PROGRAM.lstrip("/")
    program.parent.mkdir(parents=True)
    program.write_bytes(elf())
    program.chmod(0o755)
    write_layer(layer, tree)
    image = Image((name,), entrypoint=(PROGRAM,))
    if architecture:
        image = Image((name,), entrypoint=(PROGRAM,), architecture=architecture)
    archive = directory / "archive.tar"
    write_archive(archive, layer, [image])
    return archive


def elf() -> bytes:
    """The header of a program for aarch64, little-endian, of 64 bits (elf(5)); no more is read."""
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", EXECUTABLE, AARCH64, 1, 0, 0, 0, 0, 64, 0, 0, 0, 0,
                               0)  # fmt: skip
