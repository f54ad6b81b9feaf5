"""One call of the plugin, from environment and stdin to exit status, stdout and stderr.

The same for the agent (pycni/agent.py) and without one (pycni/once.py). Decides the order of the
checks and turns every exception into an error object; the work is done by pycni/attachments.py.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from typing import Any, Protocol

from pycni import attachments, netconf, netns, result
from pycni.cni import Reply, Request, check_command_version, parse_request
from pycni.errors import FileError, InvalidNetns, PycniError
from pycni.netconf import NetConf
from pycni.plugin import version_of, version_reply
from pycni.result import Result
from pycni.settings import Settings


class Attachments(Protocol):
    """What does the work: pycni.attachments, or a test's."""

    def add(
        self, request: Request, conf: NetConf, netns_fd: int, settings: Settings, /
    ) -> Result: ...

    def delete(self, request: Request, conf: NetConf, settings: Settings, /) -> None: ...

    def check(
        self, request: Request, conf: NetConf, netns_fd: int, settings: Settings, /
    ) -> None: ...


def answer(
    env: Mapping[str, str],
    stdin: bytes | OSError,
    netns_fd: int | None,
    *,
    settings: Settings,
    work: Attachments = attachments,
) -> Reply:
    """Do what the call asks for, in the node's network namespace; raises nothing but interrupts.

    `stdin` may be the error that reading it gave. `netns_fd` is CNI_NETNS opened, None if it could
    not be; it stays the caller's. stdout of the reply is one JSON document or empty.
    """
    try:
        return Reply(0, _answer(env, stdin, netns_fd, settings=settings, work=work))
    except Exception as error:
        return failure(error, b"" if isinstance(stdin, OSError) else stdin, env=env)


def failure(error: BaseException, stdin: bytes = b"", *, env: Mapping[str, str]) -> Reply:
    """The reply that reports `error`: a PycniError with its code, anything else with 999.

    stderr, for the logs, has one line, and a traceback if the error is none of ours.
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
            f"command={env.get('CNI_COMMAND', '')!r}",
            f"container={env.get('CNI_CONTAINERID', '')!r}",
            f"ifname={env.get('CNI_IFNAME', '')!r}",
            f"code={document['code']}",
            f"msg={document['msg']!r}",
            f"details={document.get('details', '')!r}",
        )
    )
    return Reply(1, _encode(document), f"{line}\n{trace}".encode(errors="backslashreplace"))


def _answer(
    env: Mapping[str, str],
    stdin: bytes | OSError,
    netns_fd: int | None,
    *,
    settings: Settings,
    work: Attachments,
) -> bytes:
    request = parse_request(env)
    if request.command == "VERSION":
        return version_reply(b"" if isinstance(stdin, OSError) else stdin)
    if isinstance(stdin, OSError):
        raise FileError(
            "stdin cannot be read",
            details=str(stdin.strerror),
            hint="the container runtime must write the network configuration to it",
        )
    conf = netconf.parse_netconf(stdin, lenient=request.command == "DEL")
    check_command_version(request.command, conf.cni_version)
    if request.command == "DEL":
        work.delete(request, conf, settings)
        return b""
    pod = _pod_netns(request, netns_fd)
    if request.command == "CHECK":
        conf.previous_result()
        work.check(request, conf, pod, settings)
        return b""
    previous = Result() if conf.prev_result is None else conf.previous_result()
    made = work.add(request, conf, pod, settings)
    return _encode(result.to_json(made.after(previous), conf.cni_version))


def _pod_netns(request: Request, netns_fd: int | None) -> int:
    if netns_fd is None:
        raise InvalidNetns(
            "CNI_NETNS cannot be opened", details=netns.found(request.netns), hint=netns.HINT
        )
    netns.check(netns_fd, allow_own=request.allow_own_netns)
    return netns_fd


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode("ascii")
