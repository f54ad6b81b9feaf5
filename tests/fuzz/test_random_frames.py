# SPDX-License-Identifier: Apache-2.0
"""Random bytes on the agent's socket, and random answers to the plugin: refused, never a crash."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from fuzz import calls
from fuzz.profiles import examples
from pycni.cni import rpc
from pycni.cni.plugin import (
    FRAME_LIMIT,
    HELLO,
    pack,
    receive,
    unpack,
)
from pycni.cni.protocol import Reply

SECONDS = 10.0
"""That a server which does not end is waited for."""

fields = st.lists(st.binary(max_size=60), max_size=5)


@st.composite
def torn(draw: st.DrawFn) -> bytes:
    """A frame with some bytes changed, missing or more."""
    frame = pack(*draw(fields))
    at = draw(st.integers(0, len(frame)))
    return frame[:at] + draw(st.binary(max_size=6)) + frame[at + draw(st.integers(0, 6)) :]


streams = st.binary(max_size=120) | torn() | fields.map(lambda some: pack(*some))


def body_of(stream: bytes) -> bytes:
    """`receive` from a peer that sends `stream` and closes."""
    rest = bytearray(stream)

    def read(count: int) -> bytes:
        piece = bytes(rest[:count])
        del rest[:count]
        return piece

    return receive(read)


@examples(short=300, long=5_000)
@given(stream=streams)
def test_a_stream_is_a_frame_or_refused(stream: bytes) -> None:
    with suppress(EOFError, ValueError):
        found = unpack(body_of(stream))

        assert stream.startswith(pack(*found))


@examples(short=100, long=5_000)
@given(length=st.integers(FRAME_LIMIT + 1, 2**32 - 1))
def test_a_frame_that_is_too_long_is_refused_before_it_is_read(length: int) -> None:
    refused = False
    try:
        body_of(length.to_bytes(4, "big"))
    except ValueError:
        refused = True

    assert refused


@examples(short=200, long=5_000)
@given(stream=streams)
def test_the_agent_outlives_any_bytes_on_its_socket(stream: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    seen: list[tuple[dict[str, str], bytes]] = []

    hello, answer = exchange(stream, seen)

    assert hello == HELLO
    if seen:
        assert unpack(answer[4:])[0] == b"0"
    elif answer:
        status, document, _ = unpack(answer[4:])
        assert (status, json.loads(document)["code"]) == (b"1", 6), "it is told, and not done"
    assert len(os.listdir("/proc/self/fd")) == before


@examples(short=200, long=5_000)
@given(env=calls.environments, stdin=calls.stdins)
def test_what_the_plugin_sends_is_what_the_agent_gets(env: dict[str, str], stdin: bytes) -> None:
    seen: list[tuple[dict[str, str], bytes]] = []
    packed = b"\0".join(b"%b=%b" % (os.fsencode(k), os.fsencode(v)) for k, v in env.items())

    _, answer = exchange(pack(packed, stdin), seen)

    assert seen == [(env, stdin)]
    assert unpack(answer[4:]) == [b"0", b"{}", b""]


def exchange(stream: bytes, seen: list[tuple[dict[str, str], bytes]]) -> tuple[bytes, bytes]:
    """Send `stream` to an agent's end and close that direction; its HELLO, and what came after."""

    def handler(env: object, stdin: bytes, _: int | None) -> Reply:
        seen.append((dict(env), stdin))  # type: ignore[call-overload]
        return Reply(0, b"{}")

    ours, theirs = socket.socketpair()
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            rpc.serve_connection(theirs, handler)
        except BaseException as error:
            failures.append(error)

    server = threading.Thread(target=serve)
    server.start()
    with ours:
        ours.settimeout(SECONDS)
        hello = ours.recv(1)
        with suppress(OSError):  # it may have refused and closed already
            ours.sendall(stream)
            ours.shutdown(socket.SHUT_WR)
        answer = bytearray()
        with suppress(ConnectionResetError):  # closed with bytes unread
            while chunk := ours.recv(1 << 16):
                answer += chunk
    server.join(SECONDS)
    assert not server.is_alive()
    assert failures == []
    return hello, bytes(answer)
