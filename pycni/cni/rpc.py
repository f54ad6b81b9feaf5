# SPDX-License-Identifier: Apache-2.0
"""The agent's end of the plugin's socket; plugin.py is the other end and defines the framing.

One call per connection. A handler gets the environment, stdin and the open network namespace of a
call, and returns the reply.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import struct
import time
from array import array
from collections.abc import Callable, Mapping
from contextlib import suppress

from pycni.cni.plugin import (
    HELLO,
    SEND_SECONDS,
    VERSIONS,
    pack,
    receive,
    unpack,
)
from pycni.cni.protocol import Reply
from pycni.errors import DecodingError, PycniError
from pycni.logfmt import quoted

Handler = Callable[[Mapping[str, str], bytes, int | None], Reply]

READ_SIZE = 1 << 20
CALL_FIELDS = 2
TRACEBACK = 8000
"""Characters of what a call has to say for itself that the log keeps."""

UCRED = struct.Struct("iII")
"""struct ucred of unix(7): pid, uid, gid."""

log = logging.getLogger(__name__)


def serve_connection(connection: socket.socket, handler: Handler) -> None:
    """Answer one call, then close the connection and the namespace's descriptor.

    Only root and the agent's own user get HELLO. A caller that breaks the protocol, or goes away in
    the middle of a call, is logged. One that connects and sends nothing is not: it only asked
    whether an agent is there. Raises what `handler` raises, after everything is closed.
    """
    descriptors: list[int] = []
    try:
        with connection:
            _serve(connection, handler, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def peer_is_trusted(connection: socket.socket) -> bool:
    """Whether the process that connected runs as root or as our own user (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    _, uid, _ = UCRED.unpack(credentials)
    return uid in (0, os.geteuid())


def has_left(connection: socket.socket) -> bool:
    """Whether the other end is closed: the plugin has ended, or waits no longer (poll(2))."""
    poll = select.poll()
    poll.register(connection, 0)  # POLLHUP is always told
    return any(found & select.POLLHUP for _, found in poll.poll(0))


def _serve(connection: socket.socket, handler: Handler, descriptors: list[int]) -> None:
    if not peer_is_trusted(connection):
        log.warning('call refused reason="the caller is neither root nor user %d"', os.geteuid())
        return
    connection.settimeout(SEND_SECONDS)
    try:
        if not _greet(connection):
            log.debug("connection closed without a call")
            return
        env, stdin = _receive_call(connection, descriptors)
    except ValueError as error:
        log.warning("call not understood error=%s", quoted(repr(error)))
        with suppress(OSError):
            _deliver(connection, _not_understood(error))
        return
    except (OSError, EOFError) as error:
        log.warning("call not received error=%s", quoted(repr(error)))
        return
    start = time.monotonic()
    reply = handler(env, stdin, descriptors[0] if descriptors else None)
    log.info(
        "call answered command=%s container=%s ifname=%s status=%d seconds=%.3f",
        *(quoted(env.get(f"CNI_{key}", "")) for key in ("COMMAND", "CONTAINERID", "IFNAME")),
        reply.status,
        time.monotonic() - start,
    )
    if reply.stderr:
        text = reply.stderr.decode(errors="replace").rstrip()
        log.error("call failed stderr=%s", quoted(text, longest=TRACEBACK))
    try:
        _deliver(connection, reply)
    except OSError as error:
        log.warning("reply not taken, the caller is gone error=%s", quoted(repr(error)))
        _take_back(reply)


def _not_understood(error: ValueError) -> Reply:
    told = DecodingError(
        "the agent does not understand the plugin",
        details=str(error),
        hint="they are of different releases: run `pycni install` again",
    )
    return Reply(1, json.dumps(told.to_json(VERSIONS[-1])).encode())


def _deliver(connection: socket.socket, reply: Reply) -> None:
    """Send the reply. Raises OSError if the caller is gone.

    Of a reply that can be taken back, wait until the caller has it: a unix socket that is closed
    with unread bytes resets the other end (unix_release_sock, net/unix/af_unix.c). A caller that
    was stopped meanwhile will read it some time.
    """
    connection.sendall(pack(b"%d" % reply.status, reply.stdout, reply.stderr))
    if reply.take_back is not None:
        connection.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            connection.recv(1)


def _take_back(reply: Reply) -> None:
    if reply.take_back is None:
        return
    try:
        reply.take_back()
    except PycniError as error:
        log.error("not taken back, until a DEL or GC comes error=%s", quoted(error.message))
    else:
        log.info("taken back")


def _greet(connection: socket.socket) -> bool:
    """Greet the caller; False if it goes away without a byte, as `pycni status` does."""
    try:
        connection.sendall(HELLO)
        return bool(connection.recv(1, socket.MSG_PEEK))
    except ConnectionError:
        return False


def _receive_call(
    connection: socket.socket, descriptors: list[int]
) -> tuple[dict[str, str], bytes]:
    """The environment and stdin of a call. Adds the descriptors that come with it to
    `descriptors`. ValueError if it is none; fields of a later release are ignored."""

    def read(count: int) -> bytes:
        data, ancillary, _, _ = connection.recvmsg(
            min(count, READ_SIZE), socket.CMSG_SPACE(array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.extend(array("i", payload))
        return data

    fields = unpack(receive(read))
    if len(fields) < CALL_FIELDS:
        raise ValueError(f"a call has {CALL_FIELDS} fields or more, this one {len(fields)}")
    packed_env, stdin = fields[:CALL_FIELDS]
    if len(descriptors) > 1:
        raise ValueError(f"{len(descriptors)} descriptors came with one call")
    env: dict[str, str] = {}
    for pair in packed_env.split(b"\0"):
        key, equals, value = os.fsdecode(pair).partition("=")
        if equals:
            env.setdefault(key, value)  # the first of two counts, as for getenv(3)
    return env, stdin
