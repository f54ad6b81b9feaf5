# SPDX-License-Identifier: Apache-2.0
"""The stand-in for systemd-logind: its messages, and how a lock holds a shutdown back."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from cluster import logind
from cluster.logind import Client, Message

HELLO = Message(logind.CALL, 1, {
    logind.OF_PATH: "/org/freedesktop/DBus", logind.OF_DESTINATION: logind.BUS,
    logind.OF_INTERFACE: logind.BUS, logind.OF_MEMBER: "Hello",
})  # fmt: skip
INHIBIT = Message(logind.CALL, 2, {
    logind.OF_PATH: logind.PATH, logind.OF_INTERFACE: logind.MANAGER, logind.OF_MEMBER: "Inhibit",
    logind.OF_SIGNATURE: "ssss",
}, b"what, who, why, mode")  # fmt: skip
SECONDS = 10.0


@pytest.fixture
def pair() -> Iterator[tuple[Client, socket.socket]]:
    """A client that is served, and its own end."""
    its, ours = socket.socketpair(socket.AF_UNIX)
    ours.settimeout(SECONDS)
    client = Client(its)
    thread = threading.Thread(target=client.serve)
    thread.start()
    with closing(its), closing(ours):
        yield client, ours
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(SECONDS)


def received(ours: socket.socket) -> tuple[Message, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(ours, 65536, 1)
    found = logind.unpack(data)
    assert found is not None
    assert found[1] == b""
    return found[0], descriptors


def greet(ours: socket.socket) -> None:
    """As godbus does it, which kubelet has."""
    ours.sendall(b"\0")
    for line, answer in (
        (b"AUTH\r\n", b"REJECTED EXTERNAL\r\n"),
        (b"AUTH EXTERNAL 30\r\n", b"OK " + logind.GUID.encode() + b"\r\n"),
        (b"NEGOTIATE_UNIX_FD\r\n", b"AGREE_UNIX_FD\r\n"),
    ):
        ours.sendall(line)
        assert ours.recv(100) == answer
    ours.sendall(b"BEGIN\r\n")


@pytest.mark.parametrize("message", [HELLO, INHIBIT])
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    assert logind.unpack(logind.pack(message) + b"more") == (message, b"more")


def test_a_message_that_is_not_whole_is_waited_for() -> None:
    whole = logind.pack(INHIBIT)

    assert all(logind.unpack(whole[:length]) is None for length in range(len(whole)))


def test_who_connects_gets_a_name_and_the_longest_delay(
    pair: tuple[Client, socket.socket],
) -> None:
    _, ours = pair
    greet(ours)

    ours.sendall(logind.pack(HELLO))
    hello, _ = received(ours)
    ours.sendall(logind.pack(Message(logind.CALL, 7, {
        logind.OF_PATH: logind.PATH, logind.OF_INTERFACE: f"{logind.BUS}.Properties",
        logind.OF_MEMBER: "Get",
    })))  # fmt: skip
    delay, _ = received(ours)

    assert hello.fields[logind.OF_SERIAL] == 1
    assert hello.body.endswith(logind.CLIENT.encode() + b"\0")
    assert delay.fields[logind.OF_SERIAL] == 7
    assert struct.unpack_from("<Q", delay.body, 8) == (logind.DELAY_MICROSECONDS,)


def test_a_shutdown_waits_until_its_lock_is_released(pair: tuple[Client, socket.socket]) -> None:
    client, ours = pair
    greet(ours)
    ours.sendall(logind.pack(INHIBIT))
    granted, descriptors = received(ours)

    client.announce()
    told, _ = received(ours)
    waiting = threading.Thread(target=logind.wait_for_release, args=(client.locks,))
    waiting.start()
    waiting.join(0.2)
    held_back = waiting.is_alive()
    os.close(descriptors[0])
    waiting.join(SECONDS)

    assert granted.fields[logind.OF_DESCRIPTORS] == 1
    assert (told.fields[logind.OF_MEMBER], told.body) == ("PrepareForShutdown", b"\1\0\0\0")
    assert held_back
    assert not waiting.is_alive()


def test_what_it_does_not_know_is_refused(pair: tuple[Client, socket.socket]) -> None:
    _, ours = pair
    greet(ours)

    ours.sendall(logind.pack(Message(logind.CALL, 3, {
        logind.OF_PATH: logind.PATH, logind.OF_INTERFACE: logind.MANAGER,
        logind.OF_MEMBER: "PowerOff",
    })))  # fmt: skip
    refused, _ = received(ours)

    assert refused.kind == logind.ERROR
    assert refused.fields[logind.OF_ERROR] == "org.freedesktop.DBus.Error.UnknownMethod"
