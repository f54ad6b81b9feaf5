"""The current programs, held open: what attaches endpoints without opening pins each time.

Reads pins only.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from . import pins
from .bpf import Program
from .errors import LoaderError
from .objects import PROGRAMS


class Programs:
    """Descriptors of the pinned current programs; `refresh()` follows upgrades and reloads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: tuple[Path, int] | None = None
        self._open: dict[str, Program] = {}

    def refresh(self) -> str:
        """Reopen if other programs are current now; returns their fingerprint.

        LoaderError if none are loaded. Call it with the lock of pins.locked held.
        """
        directory = pins.current(self._root)
        if directory is None or not directory.is_dir():
            raise LoaderError(f"no programs are loaded at {self._root}", hint="pycni setup")
        # The inode too: after unload and load the same name holds other programs.
        seen = (directory, directory.stat().st_ino)
        if seen != self._seen:
            self.close()
            for name in PROGRAMS:
                self._open[name] = Program.open_pinned(directory / name)
            self._seen = seen
        return pins.fingerprint(directory)

    def __getitem__(self, name: str) -> Program:
        return self._open[name]

    @property
    def fingerprint(self) -> str:
        """Fingerprint at the last refresh; empty before the first."""
        return pins.fingerprint(self._seen[0]) if self._seen else ""

    def close(self) -> None:
        opened, self._open, self._seen = self._open, {}, None
        for program in opened.values():
            program.close()

    def __enter__(self) -> Programs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
