# SPDX-License-Identifier: Apache-2.0
"""Kubernetes, built once: `~/.cache/pycni/kubernetes/VERSION/bin`.

go/        modules and compiled packages, for all versions; an interrupted build goes on there
VERSION/
  module/  our Go module (recipe.py)
  bin/     the programs; each is made aside and renamed, so it is whole or absent
  built.json  what each of them was made from
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import golang, recipe
from cluster.recipe import COMPONENTS, SOURCES, Part
from pycni.errors import PycniError
from pycni.files import replace_file
from vm import cache

NICE = 15
TELL_SECONDS = 20.0
"""Between two lines of progress."""
LAST_WORDS = 2000
"""Characters of what a failed build said."""

Tell = Callable[[str], None]


def provide(version: str, *, parts: Iterable[Part] = recipe.CLUSTER, tell: Tell = print) -> Path:
    """The directory of the programs of that version; builds what is missing. Raises PycniError."""
    recipe.check_version(version)
    where = cache.directory("kubernetes")
    target = where / version
    if _wanted(parts, version, target):
        with cache.locked(where):  # who had it before may have built them
            if wanted := _wanted(parts, version, target):
                _Build(version, where, tell).make(wanted)
    return target / "bin"


def _wanted(parts: Iterable[Part], version: str, target: Path) -> list[Part]:
    return recipe.missing(parts, version, _built(target), _present(target / "bin"))


def _built(target: Path) -> dict[str, str]:
    """Digest of the recipe by program; nothing of a file that nobody can read."""
    try:
        document = json.loads((target / "built.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _present(directory: Path) -> list[str]:
    return [file.name for file in directory.iterdir()] if directory.exists() else []


@dataclass
class _Build:
    """One run of the build."""

    version: str
    where: Path
    tell: Tell
    go: Path = field(init=False)
    begun: float = field(default_factory=time.monotonic)

    def make(self, parts: Sequence[Part]) -> None:
        """Build the parts, one after the other; what is done stays done."""
        self.tell(
            f"building Kubernetes {self.version} ({', '.join(part.name for part in parts)}): about "
            "10 minutes on two free processors, once; 5.5 GB in the cache; go on after Ctrl-C with "
            "the same command"
        )
        self.go = golang.provide(self.where / "go" / "toolchain", self.tell)
        source = self._prepare_module()
        agnhost = (source / "test/images/agnhost/VERSION").read_text().strip()
        for part in parts:
            self._make_part(part, recipe.link_flags(part, self.version, agnhost))
        self._finish(source)
        self.tell(f"Kubernetes {self.version} is built, {self._seconds()}")

    @property
    def _target(self) -> Path:
        return self.where / self.version

    @property
    def _module(self) -> Path:
        return self._target / "module"

    def _prepare_module(self) -> Path:
        """Write our module; returns the directory of Kubernetes' own sources."""
        shutil.copytree(SOURCES, self._module, dirs_exist_ok=True)
        (self._target / "bin").mkdir(exist_ok=True)
        described = self._fetch(f"k8s.io/kubernetes@v{self.version}")
        source = Path(described["Dir"])
        theirs = Path(described["GoMod"]).read_text()
        (self._module / "go.mod").write_text(recipe.go_mod(theirs, self.version))
        shutil.copyfile(source / "go.sum", self._module / "go.sum")
        self.tell(f"Kubernetes' sources are here, {self._seconds()}")
        return source

    def _fetch(self, module: str) -> dict[str, Any]:
        """Download a module; what `go` says of it (`go help mod download`)."""
        done = self._run(["mod", "download", "-json", module], cwd=self.where)
        document: dict[str, Any] = json.loads(done)
        return document

    def _make_part(self, part: Part, flags: str) -> None:
        aside, final = (self._target / "bin" / name for name in (f".{part.name}.new", part.name))
        listed = self._run(["list", "-deps", *["-test"] * part.is_test, part.package])
        total = len(listed.splitlines())
        self.tell(f"{part.name}: {total} packages, {self._seconds()}")
        begun = time.monotonic()
        self._compile(part.name, recipe.build_command(part, flags, aside))
        aside.replace(final)
        record = _built(self._target) | {part.name: recipe.digest(part, self.version)}
        replace_file(self._target / "built.json", json.dumps(record).encode())
        size = final.stat().st_size >> 20
        self.tell(f"{part.name}: built in {time.monotonic() - begun:.0f} s, {size} MiB")

    def _compile(self, name: str, arguments: Sequence[str]) -> None:
        """Run `go`, which prints a line for each package that it compiles, and tell of them."""
        said: list[str] = []
        with subprocess.Popen(
            self._command(arguments),
            cwd=self._module,
            env=golang.environment(self.go, self.where / "go"),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                self._watch(process, name, said)
            except BaseException:
                process.send_signal(signal.SIGINT)  # ends what it has started, too
                raise
        if process.returncode != 0:
            raise self._failure(arguments, "".join(said))

    def _watch(self, process: subprocess.Popen[str], name: str, said: list[str]) -> None:
        told = time.monotonic()
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                self.tell(f"{name}: {len(said)} compiled, {self._seconds()}")

    def _run(self, arguments: Sequence[str], *, cwd: Path | None = None) -> str:
        done = subprocess.run(
            self._command(arguments),
            cwd=cwd or self._module,
            env=golang.environment(self.go, self.where / "go"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise self._failure(arguments, done.stdout + done.stderr)
        return done.stdout

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return ["nice", "-n", str(NICE), str(self.go), *arguments]

    def _failure(self, arguments: Sequence[str], said: str) -> PycniError:
        return PycniError(
            f"go {arguments[0]} failed: Kubernetes {self.version} cannot be built",
            details=said.strip()[-LAST_WORDS:],
            hint="if it is the network, run the same again: what is built is kept",
        )

    def _finish(self, source: Path) -> None:
        """The names by which `kube` is called, and what the image of agnhost has beside it."""
        directory = self._target / "bin"
        for name in COMPONENTS:
            link = directory / name
            link.unlink(missing_ok=True)
            link.symlink_to("kube")
        for name in ("localhost.crt", "localhost.key"):
            shutil.copy2(source / "test/images/agnhost/porter" / name, directory / name)

    def _seconds(self) -> str:
        return f"after {time.monotonic() - self.begun:.0f} s"
