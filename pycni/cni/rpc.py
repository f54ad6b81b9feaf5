"""The agent's end of the plugin's socket; plugin.py is the other end and defines the framing.

One call per connection. Knows nothing of CNI: a handler gets the environment, stdin and the open
network namespace of a call, and gives the reply.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from array import array
from collections.abc import Callable, Mapping

from pycni.cni.plugin import (
    HELLO,
    SEND_SECONDS,
    pack,
    receive,
    unpack,
)
from pycni.cni.protocol import Reply

Handler = Callable[[Mapping[str, str], bytes, int | None], Reply]

READ_SIZE = 1 << 20

UCRED = struct.Struct("iII")
"""struct ucred of unix(7): pid, uid, gid."""

log = logging.getLogger(__name__)


def serve_connection(connection: socket.socket, handler: Handler) -> None:
    """Answer one call and close the connection; the namespace's descriptor is closed as well.

    A peer that is neither root nor our own user gets no HELLO. A peer that goes away or breaks the
    protocol is logged. What `handler` raises is raised, after everything is closed.
    """
    descriptors: list[int] = []
    try:
        with connection:
            _serve(connection, handler, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def peer_is_trusted(connection: socket.socket) -> bool:
    """Whether the process that connected was root's, or our own user's (SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    _, uid, _ = UCRED.unpack(credentials)
    return uid in (0, os.geteuid())


def _serve(connection: socket.socket, handler: Handler, descriptors: list[int]) -> None:
    if not peer_is_trusted(connection):
        log.warning("refused a call: the caller is neither root nor user %d", os.geteuid())
        return
    connection.settimeout(SEND_SECONDS)
    try:
        connection.sendall(HELLO)
        env, stdin = _receive_call(connection, descriptors)
    except (OSError, EOFError, ValueError) as error:
        log.warning("a call was not received error=%r", error)
        return
    start = time.monotonic()
    reply = handler(env, stdin, descriptors[0] if descriptors else None)
    log.info(
        "command=%s container=%s ifname=%s status=%d seconds=%.3f",
        *(env.get(f"CNI_{key}", "") for key in ("COMMAND", "CONTAINERID", "IFNAME")),
        reply.status,
        time.monotonic() - start,
    )
    if reply.stderr:
        log.error("%s", reply.stderr.decode(errors="replace").rstrip())
    try:
        connection.sendall(pack(b"%d" % reply.status, reply.stdout, reply.stderr))
    except OSError as error:
        log.warning("the caller is gone error=%r", error)


def _receive_call(
    connection: socket.socket, descriptors: list[int]
) -> tuple[dict[str, str], bytes]:
    """Environment and stdin of a call; the descriptors that come with it go into `descriptors`."""

    def read(count: int) -> bytes:
        data, ancillary, _, _ = connection.recvmsg(
            min(count, READ_SIZE), socket.CMSG_SPACE(array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.extend(array("i", payload))
        return data

    packed_env, stdin = unpack(receive(read))
    if len(descriptors) > 1:
        raise ValueError(f"{len(descriptors)} descriptors came with one call")
    env: dict[str, str] = {}
    for pair in packed_env.split(b"\0"):
        key, equals, value = os.fsdecode(pair).partition("=")
        if equals:
            env.setdefault(key, value)  # of two the first counts, as for getenv(3)
    return env, stdin
