"""`pycni setup` with C sources of a test: python setup_from.py SETTINGS SOURCES [clsact].

With the last word, as on a kernel without tcx.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from loader import tcx
from loader.compile import compile_programs
from loader.errors import LoaderError
from pycni.cli.failure import explain
from pycni.errors import PycniError
from pycni.settings import load
from pycni.setup import provision


def main() -> None:
    ours = partial(compile_programs, sources=Path(sys.argv[2]))
    provision.compile_programs = ours  # type: ignore[attr-defined]
    if sys.argv[3:] == ["clsact"]:
        tcx.available = lambda: False
    try:
        provision.setup(load(Path(sys.argv[1])))
    except (PycniError, LoaderError) as error:
        sys.exit(str(explain(error)))


if __name__ == "__main__":
    main()
