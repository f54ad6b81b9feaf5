# SPDX-License-Identifier: Apache-2.0
"""Debian systems in directories of the cache, by debootstrap: one with libvirt, one for the box.

A tree is built aside and renamed into place, so it is whole or absent; its name tells what is in
it, so that another list of packages is another tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from smoke.commands import run

SUITE = "bookworm"
MIRROR = os.environ.get("PYCNI_DEBIAN_MIRROR", "http://deb.debian.org/debian")

NO_SERVICES = "#!/bin/sh\nexit 101\n"
"""policy-rc.d: packages start nothing (invoke-rc.d(8))."""

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def tree(cache: Path, name: str, packages: Sequence[str], *, work: Path, log: Path) -> Path:
    """A system with packages and what they depend on, no more; built in `work`, a directory of the
    same file system. Raises Failed."""
    digest = hashlib.sha256(" ".join([SUITE, *sorted(packages)]).encode()).hexdigest()[:12]
    directory = cache / f"{name}-{digest}"
    if not directory.is_dir():
        for old in cache.glob(f"{name}-*"):
            shutil.rmtree(old)
        temporary = work / name
        temporary.mkdir()
        _build(temporary, packages, log)
        temporary.rename(directory)
    return directory


def chroot(directory: Path, *command: str | Path, log: Path | None = None) -> str:
    """Run a program in a tree."""
    return run("chroot", directory, *command, env=proxies() | ENVIRONMENT, log=log)


def proxies() -> dict[str, str]:
    """What it takes to reach the archive from here."""
    names = ("http_proxy", "https_proxy", "no_proxy")
    return {name: os.environ[name] for name in names if name in os.environ}


def _build(directory: Path, packages: Sequence[str], log: Path) -> None:
    directory.chmod(0o755)
    run("debootstrap", "--variant=minbase", SUITE, directory, MIRROR, log=log)
    policy = directory / "usr/sbin/policy-rc.d"
    policy.write_text(NO_SERVICES)
    policy.chmod(0o755)
    install = ("apt-get", "install", "-qy", "--no-install-recommends")
    chroot(directory, *install, *packages, log=log)
    chroot(directory, "apt-get", "clean", log=log)
    policy.unlink()
