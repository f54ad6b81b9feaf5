# SPDX-License-Identifier: Apache-2.0
"""The root file system of every guest: the machine's own distribution, as small as it comes.

Its own, because what runs inside is this machine's interpreter environment: the same Python, the
same libbpf. Made once by debootstrap from the machine's own archive, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from vm.apt import ArchiveError, run
from vm.cache import locked
from vm.kernels import make_image

PACKAGES = ("iproute2", "kmod", "libbpfcc", "libnftables1", "procps", "python3")
"""What the README tells the operator of a node to install, and what a guest's init needs; no
clang: nodes have none."""

COMPONENTS = {"debian": "main", "ubuntu": "main,universe"}
DISPENSABLE = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists",
               "var/cache/apt", "usr/share/info")  # fmt: skip
SPARE = 256 << 20
"""Bytes free for a guest; what it writes is gone with it."""


def fetch(cache: Path) -> Path:
    """The image, from the cache or made now. Raises ArchiveError."""
    system = platform.freedesktop_os_release()
    codename = system["VERSION_CODENAME"]
    key = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]
    image = cache / "roots" / f"{codename}-{key}.img"
    with locked(cache):
        if not image.exists():
            _make(image, codename, COMPONENTS[system["ID"]])
    return image


def _make(image: Path, codename: str, components: str) -> None:
    image.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image.parent) as temporary:
        tree, made = Path(temporary, "tree"), Path(temporary, "made.img")
        _debootstrap(codename, components, tree)
        make_image(made, tree, spare=SPARE)
        made.rename(image)


def _debootstrap(codename: str, components: str, tree: Path) -> None:
    """In a mount namespace: what it mounts in the tree ends with it, if that is by a kill, too."""
    run(
        [
            "unshare", "--mount", "--pid", "--fork", "--kill-child",
            "debootstrap", "--variant=minbase", f"--components={components}",
            f"--include={','.join(PACKAGES)}", codename, tree, _mirror(codename),
        ],
        cwd=tree.parent,
    )  # fmt: skip
    for directory in DISPENSABLE:
        shutil.rmtree(tree / directory)
        (tree / directory).mkdir()
    (tree / "pycni").mkdir()
    (tree / "usr/lib/modules").mkdir(exist_ok=True)


def _mirror(codename: str) -> str:
    """Where the machine's own apt has this release from."""
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        release, _, address = line.partition(" ")
        if release == codename:
            return address
    raise ArchiveError(f"apt knows no archive of {codename}: run apt-get update")
