# SPDX-License-Identifier: Apache-2.0
"""What the plugin becomes when no agent answers: the same work, in a process of its own.

Run as `python -I -m pycni.once [SETTINGS]` with the environment and stdin of a CNI call. Prints one
JSON document or nothing, whatever happens, so it imports the rest of pycni under its own guard.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pycni.cni import plugin
from pycni.errors import PycniError, speakable

if TYPE_CHECKING:
    from pycni.cni.protocol import Reply


def main() -> None:
    """Answer the call and exit. Whatever else is written to stdout on the way goes to stderr."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    done: Reply | None = None
    try:
        done = _reply(Path(sys.argv[1]) if sys.argv[1:] and sys.argv[1] else None)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from now on it is done, and must be told
        status, answer, log = done.status, done.stdout, done.stderr
    except BaseException as error:
        message = speakable(f"pycni failed: {type(error).__name__}: {error}")
        status, answer, _ = plugin.failure(999, message)
        log = traceback.format_exc().encode(errors="backslashreplace")
        _take_back(done)
    try:
        plugin.write(stdout, answer)
    except OSError:
        status = 1
        _take_back(done)
    with suppress(OSError):
        plugin.write(2, log)
    os._exit(status)


def _take_back(done: Reply | None) -> None:
    """Nobody hears that an ADD succeeded, so it must not have. A DEL or GC may still follow."""
    if done is not None and done.take_back is not None:
        with suppress(PycniError):
            done.take_back()


def _reply(settings_file: Path | None) -> Reply:
    from pycni import settings
    from pycni.attachments import dispatch

    netns = plugin.open_netns(os.environb.get(b"CNI_NETNS", b""))
    os.chdir("/")  # the path may have been relative
    stdin = _stdin()
    try:
        loaded = settings.load(settings_file)
    except PycniError as error:
        return dispatch.failure(error, stdin if isinstance(stdin, bytes) else b"", env=os.environ)
    return dispatch.answer(os.environ, stdin, netns, settings=loaded)


def _stdin() -> bytes | OSError:
    try:
        return plugin.read_stdin()
    except OSError as error:
        return error


if __name__ == "__main__":
    main()
