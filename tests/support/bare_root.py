# SPDX-License-Identifier: Apache-2.0
"""A host with nothing: `python -IS bare_root.py ROOT RUN PROGRAM` becomes PROGRAM in the directory
ROOT as its root, with a mount namespace of its own, in which ROOT has the directory RUN of this
machine and a /proc, and nothing else. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18


def main(root: str, run: str, program: str) -> None:
    """Does not return."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(status: int) -> None:
        if status:
            raise OSError(ctypes.get_errno(), "unshare or mount")

    def mount(source: str, target: str, kind: bytes | None = None, flags: int = 0) -> None:
        check(libc.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), None))

    check(libc.unshare(CLONE_NEWNS))
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    for directory in (root + run, f"{root}/proc"):
        Path(directory).mkdir(parents=True, exist_ok=True)
    mount(run, root + run, flags=MS_BIND | MS_REC)
    mount("proc", f"{root}/proc", b"proc")
    os.chroot(root)
    os.chdir("/")
    os.execv(program, [program])


if __name__ == "__main__":
    main(*sys.argv[1:])
