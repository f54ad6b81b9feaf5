# SPDX-License-Identifier: Apache-2.0
"""Kubernetes, and other programs in Go, built once: `~/.cache/pycni/NAME/VERSION/bin`.

kubernetes/go/  modules and compiled packages, for all; an interrupted build goes on there
NAME/VERSION/
  module/  our Go module (product.py)
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

from cluster import golang
from cluster.product import Part, Product
from pycni.errors import NotAvailable, PycniError
from pycni.files import replace_file
from vm import cache

NICE = 15
TELL_SECONDS = 20.0
"""Between two lines of progress."""
LAST_WORDS = 2000
"""Characters of what a failed build said."""
SHARED = "kubernetes"
"""The place in the cache whose lock and directory `go` all builds share."""

Tell = Callable[[str], None]


def provide(product: Product, parts: Iterable[Part], *, tell: Tell = print) -> Path:
    """The directory of a product's programs; builds those of `parts` that are missing.

    Raises PycniError.
    """
    wanted = tuple(parts)
    target = directory(product)
    if _wanted(product, wanted, target):
        with cache.locked(cache.directory(SHARED)):  # who had it before may have built them
            if left := _wanted(product, wanted, target):
                _Build(product, target, tell).make(left)
    return target / "bin"


def directory(product: Product) -> Path:
    """Of all that is made of a product."""
    return cache.directory(product.title.lower()) / product.version


def _wanted(product: Product, parts: Iterable[Part], target: Path) -> list[Part]:
    return product.missing(parts, _built(target), _present(target / "bin"))


def _built(target: Path) -> dict[str, str]:
    """Digest of the recipe by program; nothing of a file that nobody can read."""
    try:
        document = json.loads((target / "built.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _present(directory: Path) -> list[str]:
    return [file.name for file in directory.iterdir()] if directory.exists() else []


def _require(product: Product) -> None:
    """Raises NotAvailable naming the packages of what this computer lacks for a build."""
    lacking = {package: name for name, package in product.needs.items()
               if not (Path(name).exists() if "/" in name else shutil.which(name))}  # fmt: skip
    if lacking:
        raise NotAvailable(
            f"building {product} needs {', '.join(lacking.values())}",
            hint=f"apt-get install {' '.join(lacking)}",
        )


@dataclass
class _Build:
    """One run of the build."""

    product: Product
    target: Path
    tell: Tell
    go: Path = field(init=False)
    begun: float = field(default_factory=time.monotonic)

    def make(self, parts: Sequence[Part]) -> None:
        """Build the parts, one after the other; what is done stays done."""
        _require(self.product)
        self.tell(
            f"building {self.product} ({', '.join(part.name for part in parts)}): "
            f"{self.product.cost}; go on after Ctrl-C with the same command"
        )
        self.go = golang.provide(self._cache / "toolchain", self.tell)
        source = self._prepare_module()
        self.product.accompany(source, self.target / "bin")
        for part in parts:
            self._make_part(part, self.product.link_flags(part, source))
        self.tell(f"{self.product} is built, {self._seconds()}")

    @property
    def _cache(self) -> Path:
        return cache.directory(SHARED) / "go"

    @property
    def _module(self) -> Path:
        return self.target / "module"

    def _prepare_module(self) -> Path:
        """Write our module; returns the directory of theirs."""
        described = self._fetch(f"{self.product.module}@v{self.product.version}")
        source = Path(described["Dir"])
        for made in (self._module, self.target / "bin"):
            made.mkdir(parents=True, exist_ok=True)
        if self.product.own is not None:
            shutil.copytree(self.product.own, self._module, dirs_exist_ok=True)
        theirs = Path(described["GoMod"]).read_text()
        (self._module / "go.mod").write_text(self.product.go_mod(theirs))
        shutil.copyfile(source / "go.sum", self._module / "go.sum")
        self.tell(f"{self.product.title}'s sources are here, {self._seconds()}")
        return source

    def _fetch(self, module: str) -> dict[str, Any]:
        """Download a module; what `go` says of it (`go help mod download`).

        Raises NotAvailable if it cannot be had.
        """
        arguments = ["mod", "download", "-json", module]
        done = self._call(arguments, self.target.parent)
        try:
            document: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise self._failure(arguments, done.stdout + done.stderr) from None
        if done.returncode != 0:
            raise NotAvailable(
                f"{self.product} cannot be had as a Go module",
                details=str(document.get("Error", ""))[-LAST_WORDS:],
                hint="if there is no such version, choose one of: "
                f"go list -m -versions {self.product.module}; if it is the network, run the same "
                "again",
            )
        return document

    def _make_part(self, part: Part, flags: str) -> None:
        aside, final = (self.target / "bin" / name for name in (f".{part.name}.new", part.name))
        tags = f"-tags={','.join(self.product.tags)}"
        listed = self._run(["list", "-deps", tags, *["-test"] * part.is_test, part.package])
        total = len(listed.splitlines())
        self.tell(f"{part.name}: {total} packages, {self._seconds()}")
        begun = time.monotonic()
        self._compile(part.name, self.product.build_command(part, flags, aside))
        aside.replace(final)
        record = _built(self.target) | {part.name: self.product.digest(part)}
        replace_file(self.target / "built.json", json.dumps(record).encode())
        size = final.stat().st_size >> 20
        self.tell(f"{part.name}: built in {time.monotonic() - begun:.0f} s, {size} MiB")

    def _compile(self, name: str, arguments: Sequence[str]) -> None:
        """Run `go`, which prints a line for each package that it compiles, and tell of them."""
        said: list[str] = []
        with subprocess.Popen(
            self._command(arguments),
            cwd=self._module,
            env=self._environment(),
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

    def _run(self, arguments: Sequence[str]) -> str:
        done = self._call(arguments, self._module)
        if done.returncode != 0:
            raise self._failure(arguments, done.stdout + done.stderr)
        return done.stdout

    def _call(self, arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(arguments), cwd=cwd, env=self._environment(), capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return golang.environment(self.go, self._cache, with_c=self.product.with_c)

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return ["nice", "-n", str(NICE), str(self.go), *arguments]

    def _failure(self, arguments: Sequence[str], said: str) -> PycniError:
        return PycniError(
            f"go {arguments[0]} failed: {self.product} cannot be built",
            details=said.strip()[-LAST_WORDS:],
            hint="if it is the network, run the same again: what is built is kept",
        )

    def _seconds(self) -> str:
        return f"after {time.monotonic() - self.begun:.0f} s"
