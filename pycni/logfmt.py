# SPDX-License-Identifier: Apache-2.0
"""Values of log lines in logfmt: `key=value` pairs that stand on one line, whatever is in them."""

from __future__ import annotations

import json
import re

LONGEST = 300
"""Characters of a value that a line shows."""

PLAIN = re.compile(r"[!-~]+")
"""Printable ASCII without a blank."""
QUOTED = re.compile(r'["\\=]')


def quoted(value: object, *, longest: int = LONGEST) -> str:
    """A plain word as it is, anything else as a JSON string; cut after `longest` characters.

    So a value that a stranger chose can neither end the line nor look like another pair.
    """
    text = str(value)
    if len(text) > longest:
        text = text[:longest] + "..."
    if PLAIN.fullmatch(text) and not QUOTED.search(text):
        return text
    return json.dumps(text)
