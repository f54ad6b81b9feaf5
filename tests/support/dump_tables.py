# SPDX-License-Identifier: Apache-2.0
"""All tables of a node as JSON: python dump_tables.py SETTINGS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pycni.dataplane import dumps, maps
from pycni.settings import load


def main() -> None:
    root = load(Path(sys.argv[1])).pin_root
    found = {name: dumps.dump(root, name)[0] for name in maps.TABLES}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
