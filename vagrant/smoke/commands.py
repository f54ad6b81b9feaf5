"""Running programs: their failure is an error that says what they said."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


class Failed(Exception):
    """A program that had to succeed did not."""


def run(*command: str | Path, env: Mapping[str, str] | None = None, log: Path | None = None) -> str:
    """What a program printed; with `log`, that goes there and nothing is returned.

    Raises Failed.
    """
    arguments = [str(part) for part in command]
    if log is not None:
        with log.open("a") as file:
            file.write(f"\n$ {' '.join(arguments)}\n")
            file.flush()
            done = subprocess.run(
                arguments, env=env, stdout=file, stderr=file, stdin=subprocess.DEVNULL, check=False
            )
        said = f"see {log}"
    else:
        captured = subprocess.run(
            arguments,
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        done, said = captured, captured.stderr[-4000:]
    if done.returncode != 0:
        raise Failed(f"{' '.join(arguments)} ended with {done.returncode}: {said}")
    return "" if log is not None else str(done.stdout)
