# SPDX-License-Identifier: Apache-2.0
"""One request to one Kubernetes API server, over a connection of its own."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from pycni.stores.kube.access import Access
from pycni.stores.kube.body import Body
from pycni.stores.kube.tls import context_for

CONNECT_TIMEOUT = 5.0
"""Seconds; then the next server is asked."""
USER_TIMEOUT = 50_000
"""Milliseconds for which what was sent may stay without an answer of the other host's TCP."""
KEEPALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT),
)
"""A watch is silent while nothing changes. If its host is gone, it breaks within a minute
(tcp(7), TCP_USER_TIMEOUT)."""


@dataclass(frozen=True)
class Request:
    """What to ask."""

    method: str
    target: str
    """Path and query."""
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0
    """Seconds to wait for each part of the answer."""


@dataclass(frozen=True)
class Answer:
    """The head of an answer, and its body to be read."""

    status: int
    retry_after: float
    """Seconds that the server asks to wait; 0 if it does not."""
    is_json: bool
    body: Body
    connection: socket.socket


@contextmanager
def asked(access: Access, server: tuple[str, int], request: Request) -> Iterator[Answer]:
    """In the block, the answer can be read; then the connection is closed.

    Raises OSError or http.client.HTTPException if there is none, and FileError.
    """
    with ExitStack() as undo:
        dialled = _dial(access, server, undo)
        dialled.settimeout(request.timeout)
        host, port = server
        connection = http.client.HTTPConnection(host, port)
        undo.callback(connection.close)
        connection.sock = dialled
        connection.request(request.method, request.target, request.body, dict(request.headers))
        response = connection.getresponse()
        undo.callback(response.close)
        yield Answer(
            status=response.status,
            retry_after=_seconds(response.getheader("Retry-After", "")),
            is_json=response.getheader("Content-Type", "").startswith("application/json"),
            body=Body(response, dialled),
            connection=dialled,
        )


def _dial(access: Access, server: tuple[str, int], undo: ExitStack) -> socket.socket:
    context = context_for(access) if access.tls else None
    plain = undo.enter_context(socket.create_connection(server, timeout=CONNECT_TIMEOUT))
    for level, option, value in KEEPALIVE:
        plain.setsockopt(level, option, value)
    if context is None:
        return plain
    name = access.server_name or server[0]
    return undo.enter_context(context.wrap_socket(plain, server_hostname=name))


def _seconds(text: str) -> float:
    """Of a Retry-After header; the API server gives seconds, never a date."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
