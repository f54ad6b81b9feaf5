# SPDX-License-Identifier: Apache-2.0
"""Passwords of sessions, each in a file that only root may read."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pycni.errors import InvalidSettings
from pycni.files import read_regular

LENGTH_MAX = 80
"""Bytes (TCP_MD5SIG_MAXKEYLEN, linux/tcp.h)."""


class Speaker(Protocol):
    """The other end of a session."""

    @property
    def password_file(self) -> Path | None: ...


def read(speakers: Iterable[Speaker]) -> dict[Path, str]:
    """The passwords of sessions with these, by file. Raises InvalidSettings."""
    files = {one.password_file for one in speakers if one.password_file is not None}
    return {file: _password(file) for file in sorted(files)}


def _password(file: Path) -> str:
    try:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InvalidSettings(
                f"the password file {file} is open to others", hint=f"close it: chmod 0600 {file}"
            )
        text = read_regular(file, at_most=LENGTH_MAX + 1).decode("ascii").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(
            f"the password file {file} cannot be read: {error}",
            hint=f"it has one line of {LENGTH_MAX} ASCII characters or fewer; correct it, or "
            "password_file in the settings",
        ) from error
    if not text or not text.isprintable() or '"' in text:
        raise InvalidSettings(
            f"the password file {file} has no password that BIRD can read",
            hint="it has one line of printable ASCII without quotation marks",
        )
    return text
