# SPDX-License-Identifier: Apache-2.0
"""`python -m again`, from tests/: the tests that failed in the last run, once more, each alone.

Tests run beside others on a machine of two processors, and some of them wait for what must happen
within seconds. Who fails there and passes alone is named as unstable; it is a fault to look for,
not a reason to refuse a change. Who fails alone fails. More than `MOST` are not tried again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

FAILED = Path(__file__).parent.parent / ".pytest_cache/v/cache/lastfailed"
"""What pytest's plugin `cacheprovider` wrote: an object whose keys are the tests."""

MOST = 3


def main(arguments: Sequence[str]) -> int:
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len(failed) <= MOST:
        click.echo(f"again: {len(failed)} tests failed; at most {MOST} are tried again")
        return 1
    lasting = [test for test in failed if _fails(test, arguments)]
    for test in failed:
        state = "fails alone" if test in lasting else "UNSTABLE: passes alone"
        click.echo(f"again: {test} {state}")
    click.echo(f"{len(failed) - len(lasting)} passed, {len(lasting)} failed")
    return 1 if lasting else 0


def _fails(test: str, arguments: Sequence[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "--numprocesses=1", *arguments, test]
    return subprocess.run(command, cwd=FAILED.parents[3], check=False).returncode != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
