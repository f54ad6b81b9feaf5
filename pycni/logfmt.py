# SPDX-License-Identifier: Apache-2.0
"""Log lines: a sentence and `key=value` pairs, as logfmt or as JSON, one line per event.

    time=2026-11-28T19:00:00.123Z level=info module=agent serving node=n1
    {"time": "2026-11-28T19:00:00.123Z", "level": "info", "module": "agent", "message": "serving"}

Times are UTC. A traceback is one more pair. Values that others wrote go through `quoted`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

LONGEST = 300
"""Characters of a value that a line shows."""

PLAIN = re.compile(r"[!-~]+")
"""Printable ASCII without a blank."""
QUOTED = re.compile(r'["\\=]')
PAIR = re.compile(r'(?:^|(?<= ))([a-z][a-z0-9_]*)=("(?:[^"\\]|\\.)*"|[^" ]\S*|)(?= |$)')
"""A key and its value, plain or a JSON string."""

LEVELS = ("debug", "info", "warning", "error")
LOGFMT, JSON = "logfmt", "json"
FORMATS = (LOGFMT, JSON)


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


def configure(*, level: str, form: str) -> None:
    """Log to stderr from now on: one of LEVELS and up, in one of FORMATS. May be called again:
    handlers of others stay."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, (LogfmtFormatter, JsonFormatter)):
            root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == JSON else LogfmtFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())


class LogfmtFormatter(logging.Formatter):
    """One line in logfmt."""

    def format(self, record: logging.LogRecord) -> str:
        head = " ".join(f"{key}={value}" for key, value in _head(record).items())
        line = f"{head} {one_line(record.getMessage())}"
        if record.exc_info:
            line += f" traceback={json.dumps(self.formatException(record.exc_info))}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object on one line, in ASCII. The pairs of the message are keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        message, pairs = split(record.getMessage())
        document: dict[str, object] = {**_head(record), "message": message}
        document |= {key: value for key, value in pairs.items() if key not in document}
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)


def split(message: str) -> tuple[str, dict[str, str]]:
    """The sentence of a message, and its pairs with their values as they were before `quoted`."""
    pairs = {key: _unquoted(value) for key, value in PAIR.findall(message)}
    return " ".join(PAIR.sub("", message).split()), pairs


def one_line(text: str) -> str:
    """`text` with control characters as escapes: `\\n`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def _head(record: logging.LogRecord) -> dict[str, str]:
    return {
        "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}"
        f".{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "module": record.module,
    }


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
