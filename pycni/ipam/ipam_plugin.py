# SPDX-License-Identifier: Apache-2.0
"""Another IPAM plugin: found on CNI_PATH, executed as the runtime would execute it.

The plugin gets our environment and the bytes of our stdin (CNI spec 1.0.0, section 4 "Plugin
Delegation"). It also inherits a descriptor of the attachment's lock: if we are killed, the DEL that
follows waits until the plugin has ended. It keeps leases of its own.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pycni.cni import document
from pycni.cni.plugin import STDIN_LIMIT
from pycni.cni.result import Result
from pycni.errors import (
    DelegateError,
    DelegateFailed,
    IncompatibleVersion,
    InvalidParameter,
    MissingPlugin,
    speakable,
)
from pycni.logfmt import quoted

QUOTE_LIMIT = 500
"""Characters of a plugin's output that an error quotes."""

log = logging.getLogger(__name__)


def add(
    plugin: str,
    version: str,
    *,
    env: Mapping[str, str],
    stdin: bytes,
    lock: int,
    timeout: float,
) -> Result:
    """The result of the plugin's ADD: at least one address, no interfaces.

    Raises DelegateError if the plugin refused; it gave nothing then. After any other error it may
    have given an address, which only its DEL takes back.
    """
    from pycni.cni import result_reader

    output = execute("ADD", plugin, env=env, stdin=stdin, lock=lock, timeout=timeout)
    what = f"the result of the IPAM plugin {plugin}"
    try:
        given = result_reader.from_json(document.decode(output, what=what), version, what=what)
    except IncompatibleVersion as error:
        raise DelegateFailed(
            f"{what} is in an unknown version",
            details=error.message,
            hint=f"set cniVersion in the network list to one that {plugin} speaks, too",
        ) from error
    wrong = "" if given.ips else "has no address"
    if of_interfaces := [one for one in given.ips if one.interface is not None]:
        wrong = f"has {of_interfaces[0].address} with an interface, which IPAM has none of"
    if wrong:
        raise DelegateFailed(
            f"{what} {wrong}",
            details=_quote(output),
            hint="correct `ipam` in the network list",
        )
    return given


def execute(
    command: str,
    plugin: str,
    *,
    env: Mapping[str, str],
    stdin: bytes,
    lock: int | None,
    timeout: float,
) -> bytes:
    """Run the plugin to its end and return its stdout.

    Raises MissingPlugin, InvalidParameter (no CNI_PATH), DelegateError (what it reported) and
    DelegateFailed (anything else; after `timeout` seconds it is killed, with its children).
    """
    program = find(plugin, env.get("CNI_PATH", ""))
    # Files, not pipes: if a child of the plugin keeps them open, nobody waits for it.
    with (
        os.fdopen(os.memfd_create("stdin"), "r+b") as given,
        os.fdopen(os.memfd_create("stdout"), "r+b") as stdout,
        os.fdopen(os.memfd_create("stderr"), "r+b") as stderr,
    ):
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                [program],
                stdin=given,
                stdout=stdout,
                stderr=stderr,
                env={**env, "CNI_COMMAND": command},
                cwd="/",
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,
            )
        except OSError as error:
            raise MissingPlugin(
                f"the IPAM plugin {program} cannot be executed: {error.strerror}",
                hint=f"install it again; look at its mode and its interpreter: ls -l {program}",
            ) from error
        status = _wait(process, timeout)
        output, complaint = (_content(file) for file in (stdout, stderr))
    if complaint:
        log.info("IPAM plugin complained plugin=%s command=%s stderr=%s", quoted(plugin),
                 quoted(command), quoted(_quote(complaint)))  # fmt: skip
    if status == 0:
        return output
    if status is None:
        raise DelegateFailed(
            f"the IPAM plugin {plugin} did not end {command} in {timeout:.0f} s",
            hint="find what it waits for (a server, a lock); the runtime may then try again",
        )
    if status < 0:
        raise DelegateFailed(
            f"the IPAM plugin {plugin} was killed by signal {-status}",
            hint="journalctl -k says whether the kernel killed it, as for want of memory",
        )
    raise _reported(command, output) or DelegateFailed(
        f"the IPAM plugin {plugin} failed with exit status {status}",
        details=_quote(output or complaint),
        hint="correct `ipam` in the network list, or what the plugin complains of",
    )


def find(plugin: str, search: str) -> Path:
    """The first regular file of that name in the directories of CNI_PATH.

    Raises InvalidParameter without CNI_PATH, MissingPlugin if there is none.
    """
    if not search:
        raise InvalidParameter(
            "required environment variables are missing or empty: CNI_PATH",
            hint=f"it must lead to the IPAM plugin {plugin}",
        )
    if "/" in plugin or plugin in (".", ".."):
        raise MissingPlugin(
            f"ipam.type {plugin!r} is not the name of a plugin",
            hint="write the name of its file, without a directory",
        )
    for directory in search.split(":"):
        candidate = Path(directory, plugin)
        with suppress(OSError):  # a name that is too long, a directory nobody may search
            if candidate.is_absolute() and candidate.is_file():
                return candidate
    raise MissingPlugin(
        f"there is no IPAM plugin {plugin} on CNI_PATH",
        details=f"looked in {search}",
        hint="install it there, or correct ipam.type in the network configuration",
    )


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """The exit status, None if it had to be killed."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _content(file: Any) -> bytes:
    file.seek(0)
    content: bytes = file.read(STDIN_LIMIT + 1)
    return content


def _reported(command: str, output: bytes) -> DelegateError | None:
    """The error object that the plugin printed, if it is one (CNI spec, section 5 "Error")."""
    try:
        found = json.loads(output)
        code, message, details = found["code"], found["msg"], found.get("details", "")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    if type(code) is not int or code <= 0:
        return None
    if not isinstance(message, str) or not isinstance(details, str):
        return None
    if command == "DEL":  # a runtime may take these words for success
        message, details = speakable(message), speakable(details)
    return DelegateError(code, message, details=details)


def _quote(output: bytes) -> str:
    return output.decode(errors="replace").strip()[:QUOTE_LIMIT]
