# SPDX-License-Identifier: Apache-2.0
"""`python3 -m check` in vagrant/: every step on the running lab; status 1 if a check failed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from check.lab import Check, Lab
from check.machines import Failed, find
from check.steps import STEPS

NAMES = ("node-a", "node-b")


def main() -> int:
    chosen = sys.argv[1:]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="pycni-") as directory:
        try:
            lab = Lab(find(Path(directory), *NAMES))
        except (Failed, FileNotFoundError) as error:
            sys.exit(f"check: {error}")
        for step in STEPS:
            if chosen and step.__name__ not in ("prepare", *chosen):
                continue
            begin = time.monotonic()
            print(f"{step.__name__.replace('_', ' ')}", flush=True)
            try:
                for check in step(lab):
                    _print(check)
                    passed, failed = passed + check.passed, failed + (not check.passed)
            except (Failed, AssertionError, ValueError, subprocess.TimeoutExpired) as error:
                _print(Check(f"{step.__name__} came to its end", passed=False, found=str(error)))
                failed += 1
            print(f"  {time.monotonic() - begin:.0f} s", flush=True)
        for machine in lab.machines:
            machine.disconnect()
    print(f"vagrant: {passed} checks passed, {failed} failed")
    return 1 if failed else 0


def _print(check: Check) -> None:
    found = f" ({check.found})" if check.found else ""
    print(f"  {'ok' if check.passed else 'FAILED'}  {check.name}{found}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
