# SPDX-License-Identifier: Apache-2.0
"""A plugin under test: its binary, its networks, and what must run before it can work.

Strings may contain ${SANDBOX} (a private directory of the run), ${HERE} (the directory of the file
they are in) and ${PYTHON} (the interpreter the suite runs in).
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from string import Template
from typing import Any

SANDBOX = Path("/run/conformance")
"""Inside the sandbox, on a file system that ends with it."""

LISTS = ("cni_path", "setup", "state", "volatile")


@dataclass(frozen=True)
class Subject:
    """See README.md, "Describing a plugin", for the keys."""

    name: str
    plugin: str
    networks: Mapping[str, str]
    """Label to file: a network configuration, or a list whose first plugin this is."""
    cni_path: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    """A command that makes the node ready, once, inside the sandbox."""
    state: tuple[str, ...] = ()
    """A command that answers each line on stdin with one line of JSON: the plugin's own state."""
    volatile: tuple[str, ...] = ()
    """Patterns of files that are no residue."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Cases that do not apply, by id, each with what the plugin does not have."""
    profile: str = ""
    """Module of `conformance.profiles` with further cases."""
    reference: bool = False
    """A plugin to compare with: its failures do not fail the run."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def load(path: Path) -> Subject:
    """A subject from its TOML file. Raises ValueError naming what is wrong."""
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = values.keys() - {field.name for field in fields(Subject)}
    if unknown:
        raise ValueError(f"{path}: unknown keys {', '.join(sorted(unknown))}")
    return make(values, here=path.resolve().parent)


def make(values: Mapping[str, Any], *, here: Path) -> Subject:
    """A subject from a decoded document; paths are relative to nothing, so they are absolute."""
    known = {"SANDBOX": str(SANDBOX), "HERE": str(here), "PYTHON": sys.executable}

    def filled(text: str) -> str:
        return Template(text).substitute(known)

    found: dict[str, Any] = dict(values)
    found |= {key: tuple(map(filled, found[key])) for key in LISTS if key in found}
    found["plugin"] = filled(found["plugin"])
    found["networks"] = {label: filled(text) for label, text in found["networks"].items()}
    return Subject(**found)
