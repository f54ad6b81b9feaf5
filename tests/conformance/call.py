# SPDX-License-Identifier: Apache-2.0
"""One execution of a plugin: environment and bytes in, status and bytes out; and what to expect.

Sources: CNI specification 1.1.0, sections 2 (Execution Protocol) and 5 (Result Types).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.patience import patient

TIMEOUT = patient(30.0)
"""Seconds after which a call counts as hung."""

FAILURE_LIMIT = patient(5.0)
"""Seconds in which a failing call must have said so."""

ASSIGNED_CODES = {*range(1, 9), 11, 50, 51}
"""Of 0 to 99, which the specification reserves; 8 is libcni's ErrInvalidNetNS."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the process left."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def document(self) -> Json:
        """stdout as the one JSON object it must be."""
        try:
            found = json.loads(self.stdout)
        except ValueError:
            raise AssertionError(f"stdout is not one JSON document: {self.told}") from None
        assert isinstance(found, dict), f"stdout is no JSON object: {self.told}"
        return found

    @property
    def told(self) -> str:
        """Status and text, for a report."""
        text = (self.stdout or b"(stderr) " + self.stderr).decode(errors="replace").strip()
        return f"exit {self.status}: {' '.join(text.split())[:300]}"

    @property
    def text(self) -> str:
        """Message and details of an error, as runtimes show them."""
        return f"{self.document.get('msg', '')}; {self.document.get('details', '')}"


def execute(
    plugin: Path,
    env: Mapping[str, str | bytes],
    stdin: bytes | int | None,
    *,
    timeout: float = TIMEOUT,
    **popen: Any,
) -> Answer:
    """Run to the end. `stdin` is bytes, a descriptor, or None for one that is never written."""
    begin = time.monotonic()
    process = start(plugin, env, stdin if isinstance(stdin, int) else subprocess.PIPE, **popen)
    unwritten = process.stdin
    if stdin is None:
        process.stdin = None
    try:
        stdout, stderr = process.communicate(
            stdin if isinstance(stdin, bytes) else None, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"no end after {timeout:.0f} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if stdin is None and unwritten is not None:
            unwritten.close()
    return Answer(process.returncode, stdout, stderr, time.monotonic() - begin)


def start(
    plugin: Path, env: Mapping[str, str | bytes], stdin: int, **popen: Any
) -> subprocess.Popen[bytes]:
    """The plugin's process, with pipes for its output."""
    full: dict[bytes, bytes] = {b"PATH": os.environ.get("PATH", os.defpath).encode()}
    full |= {os.fsencode(key): os.fsencode(value) for key, value in env.items()}
    popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
    return subprocess.Popen([os.fspath(plugin)], stdin=stdin, env=full, **popen)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """End a call as a runtime does at its deadline: only the plugin's own process."""
    process.send_signal(number)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()


def succeeded(answer: Answer) -> Answer:
    """The answer, which must be a success."""
    assert answer.status == 0, f"failed: {answer.told}"
    return answer


def silent(answer: Answer) -> None:
    """A success that says nothing: DEL, CHECK, GC and STATUS."""
    succeeded(answer)
    assert answer.stdout == b"", f"stdout is not empty: {answer.told}"


def refused(
    answer: Answer, *codes: int, mentions: Collection[str] = (), limit: float = FAILURE_LIMIT
) -> Json:
    """A failure as the specification wants it; `codes`, if any, are the ones that fit."""
    assert answer.status != 0, f"succeeded, but must fail: {answer.told}"
    assert answer.status > 0, f"died of signal {-answer.status}"
    error = answer.document
    code = error.get("code")
    assert type(code) is int, f"code is {code!r}: {answer.told}"
    assert code in ASSIGNED_CODES or code >= 100, f"code {code} is reserved: {answer.told}"
    assert isinstance(error.get("msg"), str), f"no msg: {answer.told}"
    assert error["msg"], f"msg is empty: {answer.told}"
    assert isinstance(error.get("details", ""), str), f"details is no string: {answer.told}"
    assert not codes or code in codes, f"code {code}, not {_either(codes)}: {answer.told}"
    missing = [word for word in mentions if word not in answer.text]
    assert not missing, f"does not name {', '.join(missing)}: {answer.told}"
    assert answer.seconds < limit, f"failed only after {answer.seconds:.1f} s"
    return error


def _either(codes: tuple[int, ...]) -> str:
    return " or ".join(map(str, codes))
