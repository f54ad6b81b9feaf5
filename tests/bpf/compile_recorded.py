# SPDX-License-Identifier: Apache-2.0
"""Compiles the programs of the packet tables for where there is no clang: see tests/vm.

`python -m bpf.compile_recorded DIRECTORY`, in tests/; PYCNI_RECORDED=DIRECTORY/compiled makes the
tests run them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bpf.dataplane import compile_recorded

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir()
    compile_recorded(directory).directory.rename(directory / "compiled")
