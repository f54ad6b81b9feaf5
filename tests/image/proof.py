# SPDX-License-Identifier: Apache-2.0
"""Proof that a tree is whole: what is in it runs there, and nothing lacks a library."""

from __future__ import annotations

from pathlib import Path

from image.tree import inside
from pycni.errors import PycniError

ELF = b"\x7fELF"
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


def prove(tree: Path) -> None:
    """Raises PycniError that says what is missing, or too much."""
    refuse_compilers(tree)
    inside(tree, "/usr/bin/python3", "-I", "-c", LOAD.format(paths=libraries(tree)))
    inside(tree, "/usr/bin/python3", "-I", "-c", USE)
    inside(tree, "/usr/bin/pycni", "--version")


def libraries(tree: Path) -> list[str]:
    """Every shared library and extension module, by its path in the image."""
    found = (path for path in sorted(tree.rglob("*.so*")) if not path.is_symlink())
    return [f"/{path.relative_to(tree)}" for path in found if path.is_file() and _is_elf(path)]


def refuse_compilers(tree: Path) -> None:
    """Raises PycniError if there is a compiler, or the library of one."""
    found = [path for name in COMPILERS for path in tree.rglob(name) if path.is_file()]
    if found:
        raise PycniError(
            f"there is a compiler in the image: {found[0].relative_to(tree)}",
            hint="take its package out of PACKAGES (image/tree.py)",
        )


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ELF)) == ELF
