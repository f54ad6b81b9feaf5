# SPDX-License-Identifier: Apache-2.0
"""Values as text that is safe to print.

Names of containers, aliases of links and entries of the store come from elsewhere. A terminal would
obey control characters in them, so they are escaped.
"""

from __future__ import annotations

import json
from typing import Any

VALUE_MAX = 80
"""Characters of a value on a line with others."""


def escape(text: str) -> str:
    """`text` with every character that cannot be printed as Python's escape: `\\x1b`.

    These are control and format characters (also those that turn the direction of writing), bytes
    that are not UTF-8, and blanks other than the space.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def cell(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(cell, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={cell(one)}" for key, one in value.items())
    if value is None:
        return "-"
    return "yes" if value is True else "no" if value is False else escape(str(value))


def shorten(text: str) -> str:
    """`text` as far as a line has room for it."""
    return text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 3]}..."


def to_json(document: Any, *, indent: int | None = 2) -> str:
    """A JSON document in ASCII. Addresses and paths are strings, as `str` writes them."""
    return json.dumps(document, indent=indent, default=str)
