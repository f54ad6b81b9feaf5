# SPDX-License-Identifier: Apache-2.0
"""Values as the settings file has them: text, numbers, lists, tables in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def value(one: Any) -> str:
    """A value of TOML. A string of JSON in ASCII is one of TOML, too (toml.io, v1.0.0, String)."""
    if isinstance(one, Mapping):
        return "{" + ", ".join(f"{key} = {value(inner)}" for key, inner in one.items()) + "}"
    if isinstance(one, (list, tuple)):
        return f"[{', '.join(map(value, one))}]"
    return json.dumps(one)


def document(values: Mapping[str, Any]) -> str:
    """A file with a line for each key."""
    return "".join(f"{key} = {value(one)}\n" for key, one in values.items())
