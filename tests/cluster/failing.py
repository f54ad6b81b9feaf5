#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""A CNI plugin that does nothing, and whose first calls of a kind fail.

Its configuration has `failures`, how many by the command's name, and `state`, the directory in
which it counts them. The standard library only: it runs on a node, outside of any environment.
"""

import json
import os
import sys
from pathlib import Path


def is_to_fail(directory: Path, command: str, failures: int) -> bool:
    """Whether this call is one of the first; counts it."""
    directory.mkdir(exist_ok=True)
    counted = directory / command
    number = int(counted.read_text()) if counted.exists() else 0
    counted.write_text(str(number + 1))
    return number < failures


def main() -> int:
    command = os.environ["CNI_COMMAND"]
    config = json.load(sys.stdin)
    if is_to_fail(Path(config["state"]), command, config["failures"].get(command, 0)):
        error = {"cniVersion": config["cniVersion"], "code": 100, "msg": "this plugin fails"}
        json.dump(error, sys.stdout)
        return 1
    if command == "ADD":
        json.dump(config["prevResult"], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
