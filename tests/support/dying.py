# SPDX-License-Identifier: Apache-2.0
"""The plugin without an agent, ended by SIGKILL right before the N-th thing that it changes.

Run as `dying.py N SETTINGS`, with the environment and stdin of a CNI call. What changes something:
files that are written, renamed or removed; processes that are started; requests by which netlink
changes something. One call makes the same of them each time, so a caller can go through all.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from pycni import locks, once
from pycni.kernel.netlink import NLM_F_ACK
from pycni.kernel.netlink_socket import NetlinkSocket

NETLINK = "netlink"
STEPS = frozenset(
    {
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "subprocess.Popen",
        "os.posix_spawn",
        NETLINK,
    }
)
"""Audit events of Python, and our own."""


def main() -> None:
    """Never returns."""
    sys.dont_write_bytecode = True
    left = int(sys.argv.pop(1))

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if (event in STEPS or _is_written(event, arguments)) and not _is_lock(arguments):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    ask = NetlinkSocket.request

    def request(self: NetlinkSocket, kind: int, flags: int, body: bytes) -> bytes:
        if flags & NLM_F_ACK:
            sys.audit(NETLINK)
        return ask(self, kind, flags, body)

    NetlinkSocket.request = request  # type: ignore[method-assign]
    sys.addaudithook(count)
    once.main()


def _is_written(event: str, arguments: tuple[Any, ...]) -> bool:
    return event == "open" and bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))


def _is_lock(arguments: tuple[Any, ...]) -> bool:
    """The kernel ends a lock with its holder, whose file is the next one's (locks.py)."""
    return bool(arguments) and locks.LOCK_DIRECTORY in Path(str(arguments[0])).parts


if __name__ == "__main__":
    main()
