# SPDX-License-Identifier: Apache-2.0
"""What is built of containerd's and runc's Go modules, and how; pure."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cluster import product
from cluster.product import Part, Product
from pycni.errors import PycniError

VERSION = re.compile(r"2\.[1-9]\d?\.\d{1,3}")
"""From 2.1 on: it reads the configuration as it is written here (commands.py)."""
RUNC_VERSION = re.compile(r"v?(1\.\d{1,3}\.\d{1,3})")
EXAMPLE = "2.4.2"
TESTED_WITH = "runc-version"
"""A file in containerd's module (script/setup), copied beside its programs: the version of runc
that it is tested with. Its authors want this one or a newer."""

PACKAGE = "github.com/containerd/containerd/v2"
CONTAINERD = tuple(Part(name, f"{PACKAGE}/cmd/{name}")
                   for name in ("ctr", "containerd-shim-runc-v2", "containerd"))  # fmt: skip
RUNC = (Part("runc", "github.com/opencontainers/runc"),)


@dataclass(frozen=True)
class Containerd(Product):
    """Without snapshotters that need something of the computer."""

    title = "containerd"
    module = PACKAGE
    cost = "6.5 minutes on a busy machine, once"
    version_variable = f"{PACKAGE}/version.Version"
    tags = ("no_btrfs", "no_devmapper", "no_zfs")

    def __post_init__(self) -> None:
        """Raises PycniError if that cannot be a version, or is one that is too old."""
        hint = f"give 2.1.0 or newer, all three numbers, such as --containerd {EXAMPLE}; without " \
               "the option it is Debian's"  # fmt: skip
        product.check_version(self.version, VERSION, "containerd 2.1 or newer", hint)

    def accompany(self, source: Path, programs: Path) -> None:
        """What it wants of runc. Raises PycniError if it does not say so."""
        try:
            shutil.copyfile(source / "script/setup" / TESTED_WITH, programs / TESTED_WITH)
        except FileNotFoundError as error:
            raise PycniError(
                f"the sources of {self} do not say which runc it is tested with",
                hint=f"choose another --containerd, such as {EXAMPLE}",
            ) from error


@dataclass(frozen=True)
class Runc(Product):
    """With seccomp, which pods may ask for."""

    title = "runc"
    module = "github.com/opencontainers/runc"
    cost = "a minute, once"
    tags = ("seccomp", "urfave_cli_no_docs")
    with_c = True
    needs: ClassVar[Mapping[str, str]] = {
        "gcc": "gcc",
        "pkg-config": "pkg-config",
        "/usr/include/seccomp.h": "libseccomp-dev",
    }


def runc_of(programs: Path) -> Runc:
    """The runc that a containerd is tested with. Raises PycniError if its sources do not say so."""
    try:
        stated = (programs / TESTED_WITH).read_text().strip()
    except OSError as error:
        raise PycniError(
            f"{programs} is damaged: {error.strerror}", details=str(error.filename),
            hint=f"let it be built again: rm -r {programs.parent}",
        ) from error  # fmt: skip
    found = RUNC_VERSION.fullmatch(stated)
    if found is None:
        raise PycniError(
            f"containerd is tested with a runc that is no release: {stated!r}",
            hint=f"choose another --containerd, such as {EXAMPLE}",
        )
    return Runc(found[1])
