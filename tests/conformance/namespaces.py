# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: made as runtimes make them, entered by a thread that ends right after.

The threads that run cases never change namespace.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

Netns = str | Path
Value = TypeVar("Value")

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
NETNS_DIR = Path("/run/netns")

_libc = ctypes.CDLL(None, use_errno=True)


def within(netns: Netns, act: Callable[[], Value]) -> Value:
    """Call `act` in a thread of its own that is in the namespace; its children are, too."""

    def enter() -> None:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(descriptor, CLONE_NEWNET), str(netns))
        finally:
            os.close(descriptor)

    return _in_thread(enter, act)


def make(name: str) -> Path:
    """A named namespace, held by a bind mount; its loopback is down, as a runtime hands it over."""
    NETNS_DIR.mkdir(exist_ok=True)
    path = NETNS_DIR / name
    path.touch(exist_ok=False)

    def hold() -> None:
        mount(f"/proc/self/task/{threading.get_native_id()}/ns/net", path, flags=MS_BIND)

    _in_thread(lambda: _checked(_libc.unshare(CLONE_NEWNET), "unshare"), hold)
    return path


def unmount(path: Netns) -> None:
    """Let go of a namespace's file and leave the empty file, as some runtimes do."""
    _checked(_libc.umount2(os.fsencode(path), MNT_DETACH), str(path))


def remove(path: Netns) -> None:
    """Let go of a namespace and its file; right when either is gone already."""
    with suppress(OSError):
        unmount(path)
    Path(path).unlink(missing_ok=True)


def mount(source: str, target: Netns, *, kind: str = "", flags: int = 0) -> None:
    """mount(2)."""
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode() or None, flags, None)
    _checked(result, str(target))


@contextmanager
def sandbox_process(netns: Netns) -> Iterator[int]:
    """A process that lives in a namespace, as a pause container does; yields its pid."""
    process = within(netns, lambda: subprocess.Popen(["sleep", "600"]))
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _in_thread(enter: Callable[[], None], act: Callable[[], Value]) -> Value:
    found: list[Value] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            enter()
            found.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]


def _checked(result: int, about: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)
