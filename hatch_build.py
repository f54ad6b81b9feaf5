# SPDX-License-Identifier: Apache-2.0
"""Compiles the BPF programs and the plugin's launcher into the wheel, for nodes without clang.

The objects lie beside the sources they were made of, and serve only while these are the same:
see loader/compile.py. The launcher is for the kind of machine that builds. An editable installation
has none of both; it is for whoever changes the sources.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Prebuilt(BuildHookInterface[Any]):
    """Needs clang, libbpf's headers and the static C library where it builds, or says so."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from loader.compile import compile_programs
        from pycni.cni import launcher

        root = Path(self.root)
        cache = root / "build" / "bpf"
        objects = compile_programs(cache, sources=root / "bpf", prebuilt=None)
        executable = root / "build" / launcher.PREBUILT.name
        executable.write_bytes(launcher.compile_launcher())
        executable.chmod(0o755)
        build_data["force_include"] |= {
            str(objects.directory): "loader/bpf_objects",
            str(executable): f"pycni/cni/launcher/{launcher.PREBUILT.name}",
        }
