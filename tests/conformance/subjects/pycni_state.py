# SPDX-License-Identifier: Apache-2.0
"""pycni's own state for the oracle: the entries of its BPF maps, one line of JSON per request."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pycni.dataplane import dumps
from pycni.errors import NotAvailable

ROOT = Path("/sys/fs/bpf/pycni")
MAPS = ("endpoints", "remotes", "vteps")


def main() -> None:
    for _ in sys.stdin:
        rows = []
        for name in MAPS:
            try:
                rows += [{"map": name, **row} for row in dumps.dump(ROOT, name)[0]]
            except NotAvailable as error:
                rows.append({"map": name, "error": error.message})
        sys.stdout.write(json.dumps(rows, default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
