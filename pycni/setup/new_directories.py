# SPDX-License-Identifier: Apache-2.0
"""The directories that a setup makes, and that go away again if it fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pycni import locks
from pycni.errors import PycniError
from pycni.settings import Settings


@contextmanager
def taken_back(settings: Settings) -> Iterator[None]:
    """If the block fails, remove the node's directories, and those above them, that were not there
    before it and are empty. Locks are nothing: a directory with nothing else is empty."""
    new = _missing(settings)
    try:
        yield
    except BaseException:
        if settings.run_dir in new:
            _remove_locks(settings.run_dir)
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise


def _missing(settings: Settings) -> list[Path]:
    """Deepest first."""
    wanted = [*settings.directories.values()]
    if settings.store_file is not None:
        wanted.append(settings.store_file.parent)
    missing = {
        path
        for directory in wanted
        for path in (directory, *directory.parents)
        if not os.path.lexists(path)
    }
    return sorted(missing, key=lambda path: len(path.parts), reverse=True)


def _remove_locks(run_dir: Path) -> None:
    """Unless somebody else holds them by now; who waits for one makes it anew."""
    if run_dir.is_dir():
        with suppress(PycniError), locks.network_lock(run_dir, timeout=0):
            shutil.rmtree(run_dir / locks.LOCK_DIRECTORY, ignore_errors=True)
