# SPDX-License-Identifier: Apache-2.0
"""BIRD's control socket: one command a line, and an answer in lines with codes.

Each line of an answer begins with four digits and a dash, the last one with four digits and a
space; a line that begins with a space has the code of the one before it. Codes from 8000 on are
errors (BIRD 2, doc/reply_codes). Commands are sent and codes are looked at here; what the lines say
is read in answers.py.
"""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pycni.errors import BirdError

TIMEOUT = 5.0
"""Seconds without a word of an answer."""
ANSWER_MAX = 60.0
"""Seconds for one answer, however often a part of it comes."""
SIZE_MAX = 64 << 20
"""Bytes of an answer that a reader takes."""
RUNTIME_ERROR = 8000
"""The first code of an error; from 9000 on they are about the command itself."""
RECONFIGURED = frozenset({3, 4, 5, 18})
"""Done, under way, queued behind another one, confirmed."""
HEAD = re.compile(rb"(\d{4})([ -])(.*)", re.DOTALL)

START = (
    "start BIRD 2 with the file that pycni writes (docs/bgp.md): systemctl start pycni-bird; "
    "see its log: journalctl -u pycni-bird"
)


@dataclass(frozen=True)
class Line:
    """One line of an answer."""

    code: int
    text: str
    """Without the code."""


class Bird:
    """A connection to BIRD. Used by one thread; a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises BirdError if nobody listens at `path`."""
        self._path = path
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(str(path))
            self._answer("its greeting")
        except TimeoutError as error:
            self._socket.close()
            raise _hangs("its greeting", path) from error
        except OSError as error:
            self._socket.close()
            raise BirdError(
                f"BIRD does not run: nobody answers at {path}: {error.strerror or error}",
                hint=START,
            ) from error
        except BirdError:
            self._socket.close()
            raise

    def __enter__(self) -> Bird:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, command: str, *, nothing: int | None = None) -> list[Line]:
        """The answer to a command of one line; empty if it is an error of the code `nothing`.
        Raises BirdError if it is another error, or none comes."""
        try:
            self._socket.sendall(command.encode() + b"\n")
            lines = self._answer(command)
        except OSError as error:
            raise _hangs(f"an answer to `{command}`", self._path) from error
        for line in lines:
            if line.code == nothing:
                return []
            if line.code >= RUNTIME_ERROR:
                raise BirdError(
                    f"BIRD refuses `{command}`: {line.text.strip()}",
                    hint="is it BIRD 2.0 or later, started with the file that pycni writes? "
                    "(docs/bgp.md)",
                )
        return lines

    def configure(self) -> None:
        """Have BIRD read its file again; sessions and routes that it still has go on. Raises
        BirdError, and BIRD goes on as it was, if it refuses the file."""
        lines = self.ask("configure")
        if not any(line.code in RECONFIGURED for line in lines):
            said = "; ".join(line.text.strip() for line in lines)
            raise BirdError(
                f"BIRD does not take its configuration: {said}",
                hint="see its log: journalctl -u pycni-bird",
            )

    def _answer(self, to: str) -> list[Line]:
        """The lines of one answer. Raises OSError or BirdError."""
        found: list[Line] = []
        size, end = 0, time.monotonic() + ANSWER_MAX
        while True:
            raw = self._line(to)
            size += len(raw)
            if size > SIZE_MAX or time.monotonic() > end:
                raise BirdError(
                    f"BIRD's answer to `{to}` at {self._path} has no end: {size} bytes by now",
                    hint="see what it does: journalctl -u pycni-bird, and how many routes it has: "
                    "birdc show route count",
                )
            head = HEAD.fullmatch(raw)
            if head is not None:
                found.append(Line(int(head[1]), head[3].decode(errors="replace")))
                if head[2] == b" ":
                    return found
            elif raw[:1] == b" " and found:
                found.append(Line(found[-1].code, raw[1:].decode(errors="replace")))
            else:
                raise self._no_bird(to)

    def _line(self, to: str) -> bytes:
        while b"\n" not in self._received:
            chunk = self._socket.recv(1 << 16)
            if not chunk or len(self._received) > SIZE_MAX:
                raise self._no_bird(to)
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _no_bird(self, to: str) -> BirdError:
        return BirdError(
            f"what answers at {self._path} ended, or does not speak as BIRD does: {to}", hint=START
        )


def _hangs(missing: str, path: Path) -> BirdError:
    return BirdError(
        f"BIRD hangs: {missing} does not come at {path}",
        hint="see what it does: journalctl -u pycni-bird; then: systemctl restart pycni-bird",
    )
