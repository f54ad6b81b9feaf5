# SPDX-License-Identifier: Apache-2.0
"""`pycni setup` on a kernel that lacks a helper: python setup_without.py SETTINGS HELPER.

HELPER is its number in enum bpf_func_id; libbpf's probe is what the kernel is asked with.
"""

from __future__ import annotations

import sys
from pathlib import Path

from loader import libbpf
from loader.errors import LoaderError
from pycni.cli.failure import explain
from pycni.errors import PycniError
from pycni.settings import load
from pycni.setup import provision


def main() -> None:
    lacking, asks = int(sys.argv[2]), libbpf.probe_helper

    def probe_helper(helper: int, kind: int = libbpf.SCHED_CLS) -> bool:
        return helper != lacking and asks(helper, kind)

    libbpf.probe_helper = probe_helper
    try:
        provision.setup(load(Path(sys.argv[1])))
    except (PycniError, LoaderError) as error:
        sys.exit(str(explain(error)))


if __name__ == "__main__":
    main()
