# SPDX-License-Identifier: Apache-2.0
"""Programs of another architecture run in a tree by QEMU's emulation of single programs.

The emulator is one static file, taken out of Debian's package into the cache. Nothing is installed,
and the kernel is told of no format of executables (binfmt_misc).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from image.architectures import Architecture, own
from vm import cache
from vm.apt import Archive, run

SUITE, PACKAGE = "trixie", "qemu-user"
"""The first suite whose package has it static."""

PLACE = "emulator"
"""In a tree, while it is there."""


@contextmanager
def placed(tree: Path, architecture: Architecture) -> Iterator[None]:
    """The tree's programs can run: for another architecture than ours, it has the emulator.

    Raises ArchiveError if the emulator cannot be had.
    """
    if architecture == own():
        yield
        return
    place = tree / PLACE
    shutil.copy(provide(architecture), place)
    try:
        yield
    finally:
        place.unlink()


def command(tree: Path, words: Sequence[str]) -> list[str]:
    """How a command is started in a tree: by the emulator, if it is there.

    It runs executables only; a script is handed to its interpreter, as by execve(2).
    """
    if not (tree / PLACE).exists():
        return list(words)
    with (tree / words[0].removeprefix("/")).open("rb") as file:
        first = file.readline(256)
    interpreter = first[2:].decode().split() if first.startswith(b"#!") else []
    return [f"/{PLACE}", *interpreter, *words]


def provide(architecture: Architecture) -> Path:
    """The emulator, from the cache or fetched. Raises ArchiveError."""
    where = cache.directory("emulator")
    kept = where / f"qemu-{architecture.machine}"
    with cache.locked(where):
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=where) as directory:
                _unpack(Path(directory), kept.name).rename(kept)
    return kept


def _unpack(scratch: Path, name: str) -> Path:
    packages, root = scratch / "apt", scratch / "root"
    packages.mkdir()
    archive = Archive((SUITE,), packages, own().name)
    archive.update()
    (package,) = archive.download((PACKAGE,))
    run(["dpkg-deb", "--extract", package, root], cwd=scratch)
    return root / "usr/bin" / name
