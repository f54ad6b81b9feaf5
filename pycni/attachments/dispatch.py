# SPDX-License-Identifier: Apache-2.0
"""One call of the plugin, from environment and stdin to exit status, stdout and stderr.

The agent (agent/server.py) uses it, and so does once.py, which works without an agent. It decides
the order of the checks and turns every exception into an error object. The functions in WORK do the
rest.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from pycni.attachments import delete, gc, ways
from pycni.cni import netconf, netns, result
from pycni.cni.call import Call, Serving
from pycni.cni.plugin import SECONDS, version_of, version_reply
from pycni.cni.protocol import Reply, check_command_version, parse_request
from pycni.cni.result import Result
from pycni.errors import FileError, InvalidNetns, PycniError
from pycni.logfmt import quoted
from pycni.settings import Settings

Work = Mapping[str, Callable[[Call], Result | None]]

WORK: Work = {
    "ADD": ways.add,
    "CHECK": ways.check,
    "DEL": delete.delete,
    "GC": gc.collect,
    "STATUS": ways.status,
}
"""By command; a Result is printed."""

IN_THE_POD = ("ADD", "CHECK")

TOLD = 2000
"""Characters of an error's message or details that a log line has, at most."""


def answer(
    env: Mapping[str, str],
    stdin: bytes | OSError,
    netns_fd: int | None,
    *,
    settings: Settings,
    work: Work = WORK,
    serving: Serving | None = None,
) -> Reply:
    """Do what the call asks for, in the node's network namespace; raises nothing but interrupts.

    `stdin` may be the error from reading it. `netns_fd` is CNI_NETNS, opened, or None if that
    failed; the caller closes it. stdout of the reply is one JSON document or empty. The caller
    has the `forgetting` of `serving` work after it has given the reply; without one, it has worked
    before.
    """
    by = Serving() if serving is None else serving
    try:
        return _answer(env, stdin, netns_fd, settings=settings, work=work, serving=by)
    except Exception as error:
        return failure(error, b"" if isinstance(stdin, OSError) else stdin, env=env)
    finally:
        if serving is None:
            by.forgetting.work()


def failure(error: BaseException, stdin: bytes = b"", *, env: Mapping[str, str]) -> Reply:
    """The reply that reports `error`: a PycniError with its code, anything else with 999.

    stderr, for the logs, has one line in logfmt, and a traceback unless the error is a PycniError.
    """
    if isinstance(error, PycniError):
        told, trace = error, ""
    else:
        told = PycniError(
            f"pycni failed: {type(error).__name__}: {error}",
            hint="the log has a traceback; please report it",
        )
        trace = "".join(traceback.format_exception(error))
    document = told.to_json(version_of(stdin))
    line = " ".join(
        (
            f"command={quoted(env.get('CNI_COMMAND', ''))}",
            f"container={quoted(env.get('CNI_CONTAINERID', ''))}",
            f"ifname={quoted(env.get('CNI_IFNAME', ''))}",
            f"code={document['code']}",
            f"msg={quoted(document['msg'], longest=TOLD)}",
            f"details={quoted(document.get('details', ''), longest=TOLD)}",
        )
    )
    return Reply(1, _encode(document), f"{line}\n{trace}".encode(errors="backslashreplace"))


def _answer(
    env: Mapping[str, str],
    stdin: bytes | OSError,
    netns_fd: int | None,
    *,
    settings: Settings,
    work: Work,
    serving: Serving,
) -> Reply:
    begin = time.monotonic()
    request = parse_request(env)
    if request.command == "VERSION":
        return Reply(0, version_reply(b"" if isinstance(stdin, OSError) else stdin))
    if isinstance(stdin, OSError):
        raise FileError(
            "stdin cannot be read",
            details=str(stdin.strerror),
            hint="the container runtime must write the network configuration to it",
        )
    conf = netconf.parse_netconf(stdin, lenient=request.command == "DEL")
    check_command_version(request.command, conf.cni_version)
    pod = -1
    if request.command in IN_THE_POD:
        pod = _check_netns(netns_fd, request.netns, allow_own=request.allow_own_netns)
    elif request.command == "DEL" and netns_fd is not None:
        with suppress(PycniError):  # not a pod's namespace: there is nothing to remove in it
            pod = _check_netns(netns_fd, request.netns, allow_own=request.allow_own_netns)
    previous = Result()
    if request.command == "CHECK" or (request.command == "ADD" and conf.prev_result is not None):
        previous = conf.previous_result()
    end = begin + SECONDS[request.command.encode()]
    call = Call(request, conf, env, stdin, settings, end, pod, serving)
    made = work[request.command](call)
    if made is None:
        return Reply(0)
    with ExitStack() as undo:
        if made.take_back is not None:
            undo.callback(made.take_back)
        document = _encode(result.to_json(made.after(previous), conf.cni_version))
        undo.pop_all()
    return Reply(0, document, take_back=made.take_back)


def _check_netns(netns_fd: int | None, path: str, *, allow_own: bool) -> int:
    if netns_fd is None:
        raise InvalidNetns("CNI_NETNS cannot be opened", details=netns.found(path), hint=netns.HINT)
    netns.check(netns_fd, allow_own=allow_own)
    return netns_fd


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode("ascii")
