# SPDX-License-Identifier: Apache-2.0
"""pycni/upkeep/paths.py: the part is path_mtus.py's, but for a node without programs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pycni.upkeep import paths


def test_without_pinned_maps_another_part_says_so(tmp_path: Path) -> None:
    nothing: Any = SimpleNamespace(settings=SimpleNamespace(pin_root=tmp_path))

    assert list(paths.faults(nothing, nothing)) == []
