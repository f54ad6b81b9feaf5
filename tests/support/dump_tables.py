# SPDX-License-Identifier: Apache-2.0
"""All tables that a node has, as JSON: python dump_tables.py SETTINGS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from loader import pins
from pycni.dataplane import dumps, maps
from pycni.settings import load


def main() -> None:
    root = load(Path(sys.argv[1])).pin_root
    loaded = (name for name in maps.TABLES if pins.has_map(root, name))
    found = {name: dumps.dump(root, name)[0] for name in loaded}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
