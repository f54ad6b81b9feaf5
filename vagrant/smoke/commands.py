# SPDX-License-Identifier: Apache-2.0
"""Running programs: their failure is an error that says what they said."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Failed(Exception):
    """A program that had to succeed did not."""


def run(*command: str | Path, env: Mapping[str, str] | None = None, log: Path | None = None) -> str:
    """What a program printed; with `log`, that goes there and nothing is returned.

    Raises Failed.
    """
    arguments = [str(part) for part in command]
    quiet: dict[str, Any] = {"env": env, "stdin": subprocess.DEVNULL, "check": False}
    if log is None:
        done = subprocess.run(arguments, capture_output=True, text=True, **quiet)
        status, printed, said = done.returncode, done.stdout, done.stderr[-4000:]
    else:
        with log.open("a") as file:
            file.write(f"\n$ {' '.join(arguments)}\n")
            file.flush()
            status = subprocess.run(arguments, stdout=file, stderr=file, **quiet).returncode
        printed, said = "", f"see {log}"
    if status != 0:
        raise Failed(f"{' '.join(arguments)} ended with {status}: {said}")
    return str(printed)
