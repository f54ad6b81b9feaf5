"""The programs by name, and where their compiled objects lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# One per attach point; each is the only program of the object file of its name.
PROGRAMS = ("from_container", "to_container", "from_underlay", "from_overlay", "to_overlay")


@dataclass(frozen=True)
class Objects:
    """The compiled programs; equal digests mean equal programs."""

    directory: Path
    digest: str

    def path(self, program: str) -> Path:
        """The object file of one of PROGRAMS."""
        return self.directory / f"{program}.o"
