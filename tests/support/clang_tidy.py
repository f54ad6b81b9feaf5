# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over every C file, each with the flags that it is compiled with: `make check`.

`python -m support.clang_tidy`, in tests/; status 1 if it finds anything. What it looks for says
.clang-tidy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loader import clang
from loader.compile import SOURCES
from pycni.cni import launcher

TESTS = Path(__file__).parents[1]
HEADERS = f"({TESTS.parent})/(bpf|pycni|tests)/.*"


def main() -> int:
    """Run it on all files side by side."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(_run, commands()))
    for one in done:
        if one.returncode != 0:
            sys.stdout.write(one.stdout)
    return int(any(one.returncode for one in done))


def commands() -> Iterator[list[str]]:
    """A command for each C file that is compiled by itself; it reads the headers, too."""
    bpf = (*clang.FLAGS, "-isystem", str(clang.find_clang().asm), "-I", str(SOURCES / "lib"))
    for source in (*SOURCES.glob("*.c"), TESTS / "bpf/unusual.c", TESTS / "bench/lookups.c"):
        yield _command(source, bpf)
    for source in launcher.SOURCES:
        yield _command(source, launcher.definitions())
    yield _command(TESTS / "bench/traffic.c", ())


def _command(source: Path, flags: tuple[str, ...] | list[str]) -> list[str]:
    words = ["--quiet", "--warnings-as-errors=*", f"--header-filter={HEADERS}"]
    return ["clang-tidy", *words, str(source), "--", *flags]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
