# SPDX-License-Identifier: Apache-2.0
"""The current programs, held open. Reads pins only."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from . import pins
from .bpf import Program
from .closing import Closing
from .errors import LoaderError
from .places import PROGRAMS


class Programs(Closing):
    """Descriptors of the pinned current programs, as they are when this is made.

    LoaderError if none are loaded, FileNotFoundError if a pin is lost. Make it with the lock of
    pins.locked held; each of `names` costs an ADD some of its time.
    """

    def __init__(self, root: Path, names: Iterable[str] = PROGRAMS) -> None:
        directory = pins.current(root)
        if directory is None or not directory.is_dir():
            raise LoaderError(f"no programs are loaded at {root}", hint="run: pycni setup")
        self.fingerprint = pins.fingerprint(directory)
        with ExitStack() as undo:
            self._open = {
                name: undo.enter_context(Program.open_pinned(directory / name)) for name in names
            }
            self._owned = undo.pop_all()

    def __getitem__(self, name: str) -> Program:
        return self._open[name]

    def close(self) -> None:
        self._owned.close()
