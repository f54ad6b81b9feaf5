# SPDX-License-Identifier: Apache-2.0
"""Compiles the BPF programs into the wheel, for nodes that have no clang.

The objects lie beside the sources they were made of, and serve only while these are the same:
see loader/compile.py. An editable installation has none; it is for whoever changes the sources.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Prebuilt(BuildHookInterface[Any]):
    """Needs clang and libbpf's headers on the machine that builds, or says so."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from loader.compile import compile_programs

        root = Path(self.root)
        cache = root / "build" / "bpf"
        objects = compile_programs(cache, sources=root / "bpf", prebuilt=None)
        build_data["force_include"][str(objects.directory)] = "loader/bpf_objects"
