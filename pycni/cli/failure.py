# SPDX-License-Identifier: Apache-2.0
"""What went wrong, for people or as JSON, and the exit status that goes with it.

For people an error is one paragraph on stderr: what happened, what was found, what to do. With
`-o json` it is one JSON object on stdout, where a program reads the rows, too:

    {"error": {"message": "...", "details": "...", "hint": "...", "code": 50}}

`details` and `hint` may be empty. `code` is the code that the CNI plugin gives the same error
(pycni/errors.py); 999 is any other error.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from pycni.cli import privilege
from pycni.cli.output import escape, to_json
from pycni.errors import DataplaneError, DelegateError, NotAvailable, PycniError, StoreError

OK, FAILED, USAGE = 0, 1, 2
INTERRUPTED, ENDED = 128 + signal.SIGINT, 128 + signal.SIGTERM

EXIT_STATUSES = f"""\b
Exit status:
  {OK}    done; also the end of `agent` and of --follow by Ctrl-C
  {FAILED}    failed; `status`: degraded; `lab ping`, `lab run`, `config check`: a check failed
  {USAGE}    wrong usage; `status`: packets of pods are lost
  {INTERRUPTED}  interrupted by Ctrl-C
  {ENDED}  `lab`: ended by SIGTERM
"""

BPFFS = Path("/sys/fs/bpf")
NO_PERMISSION = (errno.EPERM, errno.EACCES)


@dataclass(frozen=True)
class Failure:
    """An error in the words of the command line."""

    message: str
    details: str = ""
    hint: str = ""
    code: int = PycniError.code

    def __str__(self) -> str:
        parts = [f"pycni: {_escape_lines(self.message)}"]
        if self.details:
            details = self.details.removeprefix("found ")
            parts.append(f"  found: {_escape_lines(details)}")
        if self.hint:
            parts.append(f"  to do: {_escape_lines(self.hint)}")
        return "\n".join(parts)

    def to_json(self) -> str:
        """The error object on one line, so that it also ends a stream of events."""
        return to_json({"error": asdict(self)}, indent=None)


def report(error: Exception, *, as_json: bool = False) -> int:
    """Print an error that ended a command; returns the exit status. Raises what is a bug."""
    if isinstance(error, click.Abort) and isinstance(error.__cause__, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, click.ClickException) and not as_json:
        error.show()
        return error.exit_code
    failure = explain(error)
    with suppress(OSError):  # stdout itself may be what failed
        click.echo(failure.to_json() if as_json else str(failure), err=not as_json)
    return error.exit_code if isinstance(error, click.ClickException) else FAILED


def drop_unwritten() -> None:
    """Let go of what could not be written: Python would try again in the end, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def explain(error: Exception) -> Failure:
    """An error in words. Raises the error itself if it is none that pycni expects."""
    from loader.errors import LoaderError
    from pycni.kernel.netlink import NetlinkError

    match error:
        case DelegateError():
            return Failure(error.message, error.details, error.hint, error.reported_code)
        case PycniError():
            details = "; ".join(filter(None, (error.details, _blindness(error))))
            hint = "; ".join(filter(None, (error.hint, _without_root(error))))
            return Failure(error.message, details, hint, error.code)
        case LoaderError():
            return Failure(error.message, error.details, error.hint, DataplaneError.code)
        case NetlinkError():
            what = "the kernel refused a change of the network"
            return Failure(what, error.strerror or "", _advice(error.errno))
        case OSError():
            return Failure(str(error), hint=_advice(error.errno))
        case click.Abort():
            return Failure("cancelled: nothing was changed", hint="answer y, or give --yes")
        case click.ClickException():
            context = error.ctx if isinstance(error, click.UsageError) else None
            hint = f"see {context.command_path} --help" if context else ""
            return Failure(error.format_message(), hint=hint)
    raise error


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """For what runs until Ctrl-C: that is its end, and no failure."""
    try:
        yield
    except KeyboardInterrupt:
        pass


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `-o json` is among the arguments: wrong usage is reported before click reads it."""
    own = list(itertools.takewhile(lambda argument: argument != "--", arguments))
    if {"-ojson", "--output=json"}.intersection(own):
        return True
    return any(pair in (("-o", "json"), ("--output", "json")) for pair in itertools.pairwise(own))


def _blindness(error: PycniError) -> str:
    """Why a command may find nothing on a node that is set up: it sees other mounts."""
    from loader import pins
    from pycni.kernel import mounts

    if type(error) is not NotAvailable or not pins.needs_bpffs(BPFFS):
        return ""
    why = mounts.why_hidden(BPFFS)
    return f"this command sees other mounts than the node's: {why}" if why else ""


def _without_root(error: PycniError) -> str:
    """A file of the store is root's; that it cannot be opened says nothing about the store."""
    if isinstance(error, StoreError) and os.geteuid() != 0:
        return f"or run it as root: you are user {os.geteuid()}"
    return ""


def _advice(code: int | None) -> str:
    return privilege.advice() if code in NO_PERMISSION else ""


def _escape_lines(text: str) -> str:
    """The verifier's log has many lines. What follows the first is moved to the right: others may
    have written it, and it must not look like what to do."""
    return "\n    ".join(map(escape, text.split("\n")))
