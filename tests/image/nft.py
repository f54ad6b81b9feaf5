# SPDX-License-Identifier: Apache-2.0
"""nft of Debian 12 and of Debian 13, each with its libraries, on whatever machine this is.

Fetched once into the cache: a node's tables are written and read by releases that differ.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pycni.lab import processes
from vm import cache
from vm.apt import Archive, run

OLDER, NEWER = "bookworm", "trixie"
"""Suites: their releases are 1.0.6 and 1.1.3."""

LINKS = {"lib": "usr/lib", "lib64": "usr/lib64"}
"""Of a tree whose packages have nothing there."""
OF_NFT = ("libnftables.so.1", "libnftnl.so.11")
"""Libraries that any later Debian can load: the others that they need have had the same names."""


@dataclass(frozen=True)
class Release:
    """A suite's nft."""

    root: Path

    def run(self, netns: str, *words: str, script: str = "") -> subprocess.CompletedProcess[bytes]:
        """Run nft in a network namespace, by default with a script; whatever comes of it."""
        command: list[str | Path] = ["chroot", self.root, "/usr/sbin/nft", *(words or ("-f", "-"))]
        return processes.run(netns, command, stdin=script.encode())

    @property
    def environment(self) -> dict[str, str]:
        """In which a program of this machine loads this libnftables. Of an older suite only: the
        machine's own C library serves it."""
        return os.environ | {"LD_LIBRARY_PATH": str(self.root / "alone")}


def provide(suite: str) -> Release:
    """From the cache, or fetched. Raises ArchiveError."""
    where = cache.directory("nft")
    root = where / suite
    with cache.locked(where):
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=where) as directory:
                _unpack(suite, Path(directory)).rename(root)
    return Release(root)


def _unpack(suite: str, scratch: Path) -> Path:
    root, packages = scratch / "root", scratch / "apt"
    packages.mkdir()
    root.mkdir(mode=0o755)
    archive = Archive((suite,), packages)
    archive.update()
    for package in archive.download_closure(("nftables",)):
        run(["dpkg-deb", "--extract", package, root], cwd=root)
    for link, target in LINKS.items():
        if not (root / link).exists():
            (root / link).symlink_to(target)
    (root / "alone").mkdir()
    for name in OF_NFT:
        shutil.copy(root / "usr/lib/x86_64-linux-gnu" / name, root / "alone" / name)
    return root
