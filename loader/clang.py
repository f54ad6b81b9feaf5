# SPDX-License-Identifier: Apache-2.0
"""Finds clang and its headers, and runs it: the only module that starts a process.

Runs no shell and reads nothing of clang's output; its messages go into the error as they are.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import CompileError

INCLUDE = Path("/usr/include")
HEADERS_HINT = "apt install linux-libc-dev libbpf-dev"
# v3: 32-bit ALU and jumps, known to every kernel since 5.1
FLAGS = ("-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror",
         "-fdebug-compilation-dir=.")  # fmt: skip
"""The last one: debug information names sources as they are included, so that an object has the
same bytes wherever it was compiled."""


@dataclass(frozen=True)
class Clang:
    """A compiler: its path, what it says of its version, and where the asm headers are."""

    path: str
    version: str
    asm: Path


def find_clang() -> Clang:
    """`clang`, or the newest `clang-N`, on PATH, with the headers that it needs.

    CompileError if any is missing.
    """
    path = shutil.which("clang") or _newest_versioned_clang()
    if path is None:
        raise CompileError("no clang on PATH", hint="apt install clang")
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    asm = next((d for d in (INCLUDE / triplet, INCLUDE) if (d / "asm/types.h").exists()), None)
    missing = [h for h in ("linux/bpf.h", "bpf/bpf_helpers.h") if not (INCLUDE / h).exists()]
    if asm is None:
        missing.append(f"{triplet}/asm/types.h")
    if asm is None or missing:
        raise CompileError(f"headers missing in {INCLUDE}: {' '.join(missing)}", hint=HEADERS_HINT)
    version = subprocess.run([path, "--version"], capture_output=True, check=False).stdout
    return Clang(path, hashlib.sha256(version).hexdigest(), asm)


def compile_file(source: Path, output: Path, *, clang: Clang, include: Path | None = None) -> None:
    """Compile one C file into a BPF object. CompileError holds the compiler's messages."""
    search = ["-isystem", str(clang.asm), *(["-I", str(include)] if include else [])]
    command = [clang.path, *FLAGS, *search, "-c", source.name, "-o", str(output.absolute())]
    result = subprocess.run(
        command, cwd=source.parent, capture_output=True, text=True, errors="replace", check=False
    )
    if result.returncode != 0:
        raise CompileError(
            f"{clang.path} cannot compile {source}",
            details=result.stderr.strip(),
            hint="install pycni's wheel, which brings the programs compiled; or another clang",
        )


def compile_all(clang: Clang, sources: Path, programs: Iterable[str], output: Path) -> None:
    """Compile `sources`/<program>.c into `output`/<program>.o for each program, side by side."""

    from concurrent.futures import ThreadPoolExecutor  # an agent compiles seldom

    def compile_one(program: str) -> None:
        compile_file(sources / f"{program}.c", output / f"{program}.o", clang=clang)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, programs))


def _newest_versioned_clang() -> str | None:
    found = {
        int(path.name.removeprefix("clang-")): str(path)
        for directory in os.get_exec_path()
        for path in sorted(Path(directory).glob("clang-*"), reverse=True)
        if re.fullmatch(r"clang-\d+", path.name) and os.access(path, os.X_OK)
    }
    return found[max(found)] if found else None
