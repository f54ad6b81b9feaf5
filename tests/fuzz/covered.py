# SPDX-License-Identifier: Apache-2.0
"""Fuzzing that follows coverage: inputs that reach new code are kept and changed further.

`python -m fuzz.covered --seconds 60`, in tests/, takes each target in turn, from the corpus in the
repository. `--keep` adds what it learned there. An input that fails is saved beside,
and the exit status is not 0. Needs atheris (the extra `fuzz`), which has no build for every
machine: without it this says so, and succeeds.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
TARGETS = ("store", "stdin", "kube")
LONGEST = 4096
"""Bytes of an input."""
INPUT_TIMEOUT = 10
"""Seconds that one input may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="add what was learned to the corpus")
    parser.add_argument("--target", choices=TARGETS, help="one of them, instead of all")
    options, rest = parser.parse_known_args()
    if rest:  # libFuzzer's own options: this is the process that fuzzes
        return fuzz(options.target, rest)
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("nothing was fuzzed: atheris has no build for this machine\n")
        return 0
    targets = [options.target] if options.target else TARGETS
    return max(run(target, options.seconds, keep=options.keep) for target in targets)


def run(target: str, seconds: int, *, keep: bool) -> int:
    """Fuzz one target in a process of its own; its exit status."""
    known = CORPUS / target
    with tempfile.TemporaryDirectory() as directory:
        learned = Path(directory) / "learned"
        learned.mkdir()
        status = _libfuzzer(target, f"-max_total_time={seconds}", f"-max_len={LONGEST}",
                            f"-timeout={INPUT_TIMEOUT}", f"-artifact_prefix={target}-failed-",
                            "-verbosity=0", "-print_final_stats=1", learned, known)  # fmt: skip
        if status == 0 and keep:
            shutil.copytree(learned, known, dirs_exist_ok=True)
    return status


def _libfuzzer(target: str, *options: str | Path) -> int:
    command = [sys.executable, "-m", "fuzz.covered", "--target", target, *map(str, options)]
    return subprocess.run(command, check=False).returncode


def fuzz(target: str, options: list[str]) -> int:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["pycni", "fuzz.targets"]):
        from fuzz.targets import TARGETS as functions

    atheris.Setup([sys.argv[0], *options], functions[target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
