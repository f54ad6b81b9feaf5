# SPDX-License-Identifier: Apache-2.0
"""Programs that are built of one Go module at one version; pure but for what they are made from.

They are built in a module of ours, which has the go.mod of theirs: so each dependency has the
version that its authors chose.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pycni.errors import PycniError

OURS = "pycni/cluster"
"""The name of our module."""


@dataclass(frozen=True)
class Part:
    """A program: its file's name and the Go package it is built from."""

    name: str
    package: str
    is_test: bool = False


@dataclass(frozen=True)
class Product:
    """What is built; `title` names it in words and, in small letters, its place in the cache."""

    version: str

    title: ClassVar[str]
    module: ClassVar[str]
    """Of Go, without its version."""
    cost: ClassVar[str]
    """What a build takes, in words."""
    own: ClassVar[Path | None] = None
    """The directory of our own Go programs, if it has any."""
    tags: ClassVar[tuple[str, ...]] = ()
    """Of `go build -tags`."""
    with_c: ClassVar[bool] = False
    """Whether C is compiled, too (cgo)."""
    version_variable: ClassVar[str] = ""
    """Of Go: the one that gets `v` and the version (-X of `go tool link`), if there is one."""
    needs: ClassVar[Mapping[str, str]] = {}
    """Programs, and files by their paths, of the computer; each with its Debian package."""

    def __str__(self) -> str:
        return f"{self.title} {self.version}"

    def go_mod(self, theirs: str) -> str:
        """The go.mod of our module, out of theirs."""
        ours = re.sub(r"^module .*$", f"module {OURS}", theirs, count=1, flags=re.M)
        return f"{ours}\nrequire {self.module} v{self.version}\n"

    def accompany(self, source: Path, programs: Path) -> None:
        """Put into the programs' directory what else is wanted of the module."""

    def values(self, _part: Part, _source: Path | None) -> dict[str, str]:
        """What a program tells of itself, by Go's name of the variable."""
        name = self.version_variable
        return {name: f"v{self.version}"} if name else {}

    def link_flags(self, part: Part, source: Path | None) -> str:
        """For -ldflags: no symbols, and the values.

        `source` is the directory of the module, or None for a digest: what is read there comes with
        the version.
        """
        values = self.values(part, source)
        return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])

    def build_command(self, part: Part, flags: str, output: Path) -> list[str]:
        """The command line after `go`; `-v` prints each package as it is compiled."""
        verb = ["test", "-c"] if part.is_test else ["build"]
        tags = [f"-tags={','.join(self.tags)}"] if self.tags else []
        return [*verb, "-v", "-trimpath", *tags, "-ldflags", flags, "-o", str(output), part.package]

    def ingredients(self, part: Part) -> list[Any]:
        """What a program is built from, but for our own sources."""
        return [self.version, self.tags, vars(part), self.link_flags(part, None)]

    def digest(self, part: Part) -> str:
        """What a program was built from: versions, flags and our own sources."""
        hashed = hashlib.sha256(json.dumps(self.ingredients(part)).encode())
        if self.own is not None and part.package.startswith("./"):
            for file in sorted((self.own / part.package).glob("*.go")):
                hashed.update(file.read_bytes())
        return hashed.hexdigest()

    def missing(
        self, parts: Iterable[Part], built: Mapping[str, str], present: Sequence[str]
    ) -> list[Part]:
        """The parts whose file is not `present`, or was `built` from something else."""
        return [
            part
            for part in parts
            if part.name not in present or built.get(part.name) != self.digest(part)
        ]


def check_version(text: str, pattern: re.Pattern[str], what: str, hint: str) -> str:
    """Raises PycniError if a text is no version of that kind."""
    if not pattern.fullmatch(text):
        raise PycniError(f"{text!r} is no version of {what}", hint=hint)
    return text
