# SPDX-License-Identifier: Apache-2.0
"""Where downloads and logs stay between runs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def directory(name: str = "vm") -> Path:
    """$XDG_CACHE_HOME/pycni/NAME, or below ~/.cache (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    found = Path(home) / "pycni" / name
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


@contextmanager
def locked(where: Path) -> Iterator[None]:
    """One run at a time fetches into the cache; the others wait, and find what they need."""
    with (where / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def logs(kernel: str) -> Path:
    """An empty directory for the consoles of one run with a kernel; the last run's are kept."""
    found = directory() / "logs" / kernel
    found.mkdir(parents=True, exist_ok=True)
    for old in found.iterdir():
        old.unlink()
    return found
