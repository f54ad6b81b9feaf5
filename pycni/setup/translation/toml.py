# SPDX-License-Identifier: Apache-2.0
"""Values as the settings file has them: text, numbers, lists, tables in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

BMP_MAX = 0xFFFF
"""The last code point of Unicode's first plane."""


def value(one: Any) -> str:
    """A value of TOML, in ASCII."""
    if isinstance(one, Mapping):
        return "{" + ", ".join(f"{key} = {value(inner)}" for key, inner in one.items()) + "}"
    if isinstance(one, (list, tuple)):
        return f"[{', '.join(map(value, one))}]"
    return _text(one) if isinstance(one, str) else json.dumps(one)


def _text(one: str) -> str:
    """A string. Escapes of JSON are those of TOML, but for pairs of surrogates: beyond the first
    plane TOML has eight digits (toml.io, v1.0.0, String)."""
    letters = (
        f"\\U{ord(letter):08x}" if ord(letter) > BMP_MAX else json.dumps(letter)[1:-1]
        for letter in one
    )
    return f'"{"".join(letters)}"'


def document(values: Mapping[str, Any]) -> str:
    """A file with a line for each key."""
    return "".join(f"{key} = {value(one)}\n" for key, one in values.items())
