# SPDX-License-Identifier: Apache-2.0
"""The agent's socket: where the plugin's calls come in, each answered in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pycni import locks
from pycni.agent.current import Current
from pycni.attachments import dispatch
from pycni.cni import rpc
from pycni.cni.call import Serving
from pycni.errors import SetupError, TryAgain
from pycni.files import make_private_directory
from pycni.kernel.forgetting import Forgetting
from pycni.logfmt import quoted
from pycni.names import AWAY_NOTE
from pycni.settings import Settings

CALLS_AT_ONCE = 64
ACCEPT_INTERVAL = 1.0
"""Seconds between two looks at whether to stop."""

STOP_FIRST = (
    "stop it first: one agent runs per node, that of the systemd units or that of the DaemonSet"
)

log = logging.getLogger(__name__)


@contextlib.contextmanager
def only_agent(settings: Settings) -> Iterator[None]:
    """Be the one agent of the node. Raises SetupError if another process is."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.agent_lock(settings.run_dir))
        except TryAgain as error:
            raise SetupError(
                f"another agent serves {settings.socket_path}",
                details=error.message,
                hint=STOP_FIRST,
            ) from error
        yield


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at `path`, mode 0600 in a 0700 directory; removed at the end.

    Raises SetupError if somebody listens there already.
    """
    make_private_directory(path.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise SetupError(f"another agent serves {path}", hint=STOP_FIRST)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(CALLS_AT_ONCE)
        listener.settimeout(ACCEPT_INTERVAL)
        mark = _mark(path)
        path.with_name(AWAY_NOTE).unlink(missing_ok=True)
        try:
            yield listener
        finally:
            if _mark(path) == mark:
                path.unlink(missing_ok=True)


def serve(
    listener: socket.socket, current: Current, stop: threading.Event, *, forgetting: Forgetting
) -> None:
    """Answer calls, each by the settings of its time, until `stop`, or until teardown has removed
    the socket's file; sets `stop`."""
    path = current.settings.socket_path
    mark = _mark(path)
    slots = threading.BoundedSemaphore(CALLS_AT_ONCE)
    calls: set[threading.Thread] = set()

    def answer(connection: socket.socket) -> None:
        serving = Serving(forgetting, partial(rpc.has_left, connection))
        try:
            rpc.serve_connection(
                connection,
                lambda env, stdin, netns: dispatch.answer(
                    env, stdin, netns, settings=current.settings, serving=serving
                ),
            )
        except Exception:
            log.exception("call failed")
        finally:
            slots.release()

    while not stop.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if _mark(path) != mark:
                log.warning('stopping reason="the socket is gone" socket=%s', quoted(path))
                stop.set()
            continue
        slots.acquire()
        call = threading.Thread(target=answer, args=(connection,), daemon=True)
        calls = {thread for thread in calls if thread.is_alive()} | {call}
        call.start()
    for call in calls:
        call.join()


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells the file at `path` from one made there later; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns
