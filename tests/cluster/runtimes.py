# SPDX-License-Identifier: Apache-2.0
"""A current container runtime, built once: `~/.cache/pycni/runtime/VERSION`.

containerd, its shim and `ctr` are one Go module, runc is another. Each is built in a module of ours
with the go.mod of theirs, so all dependencies have the versions that they chose. runc is linked
with the computer's libseccomp, whose headers are taken from Debian's package.

go/, KUBERNETES' cache   Go's modules and compiled packages are shared with build.py
bin/                     the programs; the last that is made is runc
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster import golang
from pycni.errors import PycniError
from vm import cache
from vm.apt import Archive, run

SUITE = "bookworm"
SECCOMP = "libseccomp-dev"
NICE = 15
LAST_WORDS = 2000
"""Characters of what a failed build said."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Module:
    """A Go module and the programs that are built of it."""

    path: str
    version: str
    packages: dict[str, str]
    """By the program's name: its package's path below the module's."""
    tags: str = ""
    has_c: bool = False
    """Whether C is compiled with it."""


CONTAINERD = Module(
    "github.com/containerd/containerd/v2", "2.4.2",
    {name: f"/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
)  # fmt: skip
RUNC = Module("github.com/opencontainers/runc", "1.5.3", {"runc": ""}, "seccomp", has_c=True)
MODULES = (CONTAINERD, RUNC)
VERSION = "-".join(module.version for module in MODULES)


def provide(*, tell: Tell = print) -> Path:
    """The directory of the programs; builds what is missing. Raises PycniError or ArchiveError."""
    where = cache.directory("runtime") / VERSION
    where.mkdir(exist_ok=True)
    programs = where / "bin"
    with cache.locked(where):
        for module in MODULES:
            if not all((programs / name).exists() for name in module.packages):
                tell(f"building {module.path} {module.version}, once: some minutes")
                _build(module, where)
    return programs


def _build(module: Module, where: Path) -> None:
    shared = cache.directory("kubernetes") / "go"
    go = golang.provide(shared / "toolchain", lambda _: None)
    env = golang.environment(go, shared)
    if module.has_c:
        env |= {"CGO_ENABLED": "1", **_seccomp(where)}
    directory = where / module.path.replace("/", "-")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    described = json.loads(
        _go(go, ["mod", "download", "-json", f"{module.path}@v{module.version}"], where, env)
    )
    theirs = Path(described["GoMod"]).read_text()
    (directory / "go.mod").write_text(go_mod(theirs, module))
    shutil.copyfile(Path(described["Dir"]) / "go.sum", directory / "go.sum")
    (where / "bin").mkdir(exist_ok=True)
    for name, package in module.packages.items():
        aside = where / "bin" / f".{name}.new"
        _go(go, build_command(module, package, aside), directory, env)
        aside.replace(where / "bin" / name)


def go_mod(theirs: str, module: Module) -> str:
    """Our module's go.mod: theirs, under our name, and with theirs as a requirement."""
    ours = re.sub(r"^module .*$", "module pycni/runtime", theirs, count=1, flags=re.M)
    return f"{ours}\nrequire {module.path} v{module.version}\n"


def build_command(module: Module, package: str, output: Path) -> list[str]:
    """The command line after `go`."""
    tags = ["-tags", module.tags] if module.tags else []
    return ["build", "-trimpath", *tags, "-ldflags", "-s -w", "-o", str(output),
            f"{module.path}{package}"]  # fmt: skip


def _seccomp(where: Path) -> dict[str, str]:
    """For pkg-config(1): the headers of libseccomp, unpacked and not installed."""
    tree = where / "seccomp"
    if not tree.exists():
        archive = Archive((SUITE,), cache.directory("kubernetes") / "apt")
        archive.update()
        aside = where / "seccomp.new"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for package in archive.download([SECCOMP]):
            run(["dpkg-deb", "--extract", package, aside], cwd=aside)
        _point_at_installed(aside)
        aside.replace(tree)
    (described,) = tree.rglob("libseccomp.pc")
    return {"PKG_CONFIG_PATH": str(described.parent), "PKG_CONFIG_SYSROOT_DIR": str(tree)}


def _point_at_installed(tree: Path) -> None:
    """The package has the static library and a link to the shared one, which is the computer's."""
    for link in list(tree.rglob("libseccomp.so*")):  # a pattern finds links that lead nowhere, too
        name = link.readlink()
        link.unlink()
        link.symlink_to(Path("/", link.parent.relative_to(tree), name))


def _go(go: Path, arguments: list[str], directory: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["nice", "-n", str(NICE), go, *arguments],
        cwd=directory, env=dict(env), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise PycniError(
            f"go {arguments[0]} failed: the container runtime cannot be built",
            details=(done.stdout + done.stderr).strip()[-LAST_WORDS:],
            hint="if it is the network, run the same again: what is built is kept",
        )
    return done.stdout
