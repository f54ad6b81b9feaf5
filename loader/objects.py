# SPDX-License-Identifier: Apache-2.0
"""Where the compiled programs lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Objects:
    """The compiled programs; equal digests mean equal programs."""

    directory: Path
    digest: str

    def path(self, program: str) -> Path:
        """The object file of one of loader.PROGRAMS."""
        return self.directory / f"{program}.o"
