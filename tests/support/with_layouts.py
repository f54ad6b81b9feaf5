# SPDX-License-Identifier: Apache-2.0
"""A program with the layouts of other C sources: python with_layouts.py HEADER PROGRAM ARGUMENTS.

As a pycni would be that was built with that types.h. PROGRAM is a file, or the name of a module.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

from loader.abi import generate

NAME = "pycni.dataplane.abi"


def main() -> None:
    header, program, *arguments = sys.argv[1:]
    other = ModuleType(NAME)
    exec(compile(generate(Path(header)), NAME, "exec"), vars(other))
    sys.modules[NAME] = other
    sys.argv = [program, *arguments]
    if Path(program).suffix == ".py":
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
