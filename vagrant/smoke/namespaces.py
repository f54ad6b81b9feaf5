# SPDX-License-Identifier: Apache-2.0
"""Namespaces for one program: its processes, mounts and network end with it, and it with this one.

Linux's rules: when the first process of a PID namespace ends, the kernel kills all others in it;
mounts and network go with the last process (pid_namespaces(7), mount_namespaces(7)).
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

OWN = ("--mount", "--pid", "--ipc", "--uts", "--propagation", "private", "--mount-proc")


def run(*command: str | Path, network: bool, env: Mapping[str, str] | None = None) -> int:
    """The exit status of a program that is the first process of new namespaces.

    However this returns, everything in them has ended. If this process is killed, it ends as well.
    A terminal's signals do not reach it: they are for this process.
    """
    namespaces = OWN if network else (*OWN, "--net")
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--",
         "unshare", *namespaces, "--fork", "--kill-child", "--", *command],
        env=env, start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait()
    finally:
        if process.returncode is None:
            _end(process)


def adopt() -> None:
    """To be called by the first process: it returns in a child of it, and only there.

    The first process waits for that child and, as nobody else can, for all whose parents have
    ended. Without that a daemon that is killed stays as a zombie, and libvirt, which kills some and
    looks whether they are gone, waits 40 seconds for each.
    """
    child = os.fork()
    if child == 0:
        return
    while True:
        ended, status = os.wait()
        if ended == child:
            sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill unshare, with which the first process ends; wait until that has, and so all others."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    firsts = []
    for child in children.read_text().split():
        with suppress(ProcessLookupError):
            firsts.append(os.pidfd_open(int(child)))
    process.kill()
    process.wait()
    for first in firsts:
        select.select([first], [], [])
        os.close(first)
