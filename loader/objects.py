# SPDX-License-Identifier: Apache-2.0
"""Where the compiled programs lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Objects:
    """The compiled programs; equal digests mean equal programs."""

    directory: Path
    digest: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Entries that maps must have room for, by name. Such a map is at least as large as the
    programs declare it, and as the pinned one is: it grows, and never shrinks. 0 is for one that is
    switched off: it is as the programs declare it, and empty if it was larger."""

    def path(self, program: str) -> Path:
        """The object file of one of loader.places.OBJECTS."""
        return self.directory / f"{program}.o"
