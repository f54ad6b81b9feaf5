# SPDX-License-Identifier: Apache-2.0
"""Proof that a tree is whole: what is in it runs there, and nothing lacks a library."""

from __future__ import annotations

import struct
from pathlib import Path

from image import emulator
from image.architectures import Architecture, own
from image.tree import LAUNCHER, inside
from pycni.errors import PycniError

ELF = b"\x7fELF"
MACHINE = struct.Struct("<18xH")
"""The head of an ELF file up to e_machine, elf(5)."""
BPF = 247
"""EM_BPF: the programs, which each architecture can load."""
COMPILERS = ("bin/clang*", "bin/gcc*", "bin/cc", "bin/ld", "bin/as", "bin/tcc", "cc1",
             "libLLVM*.so*", "libclang*.so*")  # fmt: skip

LOAD = """
import ctypes
for path in {paths!r}:
    ctypes.CDLL(path)
"""
USE = """
import ssl, sqlite3, ctypes, http.client, zlib, lzma, bz2, uuid
import pycni.agent.agent, pycni.stores.kube, pycni.stores.etcd, pycni.stores.sqlite
from loader import libbpf
from loader.compile import PREBUILT, compile_programs
from pathlib import Path
libbpf.library()
ctypes.CDLL("libnftables.so.1")
objects = compile_programs(Path("/nowhere"))
assert objects.directory == PREBUILT, objects
"""


def prove(tree: Path, architecture: Architecture | None = None) -> None:
    """Raises PycniError that says what is missing, or too much; by default for this machine.

    Programs of another architecture run by an emulator: ArchiveError if it cannot be had.
    """
    architecture = architecture or own()
    refuse_compilers(tree)
    refuse_strangers(tree, architecture)
    with emulator.placed(tree, architecture):
        inside(tree, "/usr/bin/python3", "-I", "-c", LOAD.format(paths=libraries(tree)))
        inside(tree, "/usr/bin/python3", "-I", "-c", USE)
        inside(tree, "/usr/bin/pycni", "--version")
        inside(tree, f"/{LAUNCHER}/launcher-{architecture.machine}")


def libraries(tree: Path) -> list[str]:
    """Every shared library and extension module, by its path in the image."""
    found = (path for path in sorted(tree.rglob("*.so*")) if not path.is_symlink())
    return [f"/{path.relative_to(tree)}" for path in found if path.is_file() and _machine(path)]


def refuse_compilers(tree: Path) -> None:
    """Raises PycniError if there is a compiler, or the library of one."""
    found = [path for name in COMPILERS for path in tree.rglob(name) if path.is_file()]
    if found:
        raise PycniError(
            f"there is a compiler in the image: {found[0].relative_to(tree)}",
            hint="take its package out of PACKAGES (image/tree.py)",
        )


def refuse_strangers(tree: Path, architecture: Architecture) -> None:
    """Raises PycniError if there is a program or a library of another architecture."""
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        found = _machine(path)
        if found not in (None, BPF, architecture.elf):
            raise PycniError(
                f"{path.relative_to(tree)} is not for {architecture.name}",
                details=f"ELF machine {found}, not {architecture.elf}",
                hint="whatever brings it must be asked for its architecture (image/tree.py)",
            )


def _machine(path: Path) -> int | None:
    """For which machine a file is, or None if it is no ELF file."""
    with path.open("rb") as file:
        head = file.read(MACHINE.size)
    if not head.startswith(ELF) or len(head) < MACHINE.size:
        return None
    (machine,) = MACHINE.unpack(head)
    return int(machine)
