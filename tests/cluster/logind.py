# SPDX-License-Identifier: Apache-2.0
"""`logind.py SOCKET`: what kubelet needs of systemd-logind to end its pods before the node ends.

A machine has no systemd and no D-Bus, so this is both: a bus on which only the login manager
answers. It grants one kind of lock, of those who want time before a shutdown. At SIGUSR1 it tells
them that the node shuts down, and ends as soon as all locks are released: then the power may go.

The standard library only: it runs outside of any environment. The messages are D-Bus
(dbus.freedesktop.org, specification 0.43), little-endian; the interface is
org.freedesktop.login1(5), `Inhibit`, `InhibitDelayMaxUSec` and `PrepareForShutdown`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

BUS = "org.freedesktop.DBus"
NAME, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
MANAGER = f"{NAME}.Manager"
CLIENT = ":1.1"
"""The unique name that each client gets: no two of them ever meet."""
DELAY_MICROSECONDS = 600 * 1_000_000
"""The longest that a lock may hold a shutdown back."""
CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
HEADER = struct.Struct("<cBBBIII")
"""Byte order, kind, flags, version, bytes of the body, serial, bytes of the fields."""
OF_PATH, OF_INTERFACE, OF_MEMBER, OF_ERROR, OF_SERIAL, OF_DESTINATION, OF_SENDER, OF_SIGNATURE, \
    OF_DESCRIPTORS = range(1, 10)  # fmt: skip
FIELD_TYPES = {
    OF_PATH: "o", OF_INTERFACE: "s", OF_MEMBER: "s", OF_ERROR: "s", OF_SERIAL: "u",
    OF_DESTINATION: "s", OF_SENDER: "s", OF_SIGNATURE: "g", OF_DESCRIPTORS: "u",
}  # fmt: skip
GUID = "0" * 32
YES = struct.pack("<I", 1)
HELD = "a lock is held"
"""A line of its log."""

Value = str | int


@dataclass(frozen=True)
class Message:
    """One of D-Bus; of the body only what is sent here has a meaning."""

    kind: int
    serial: int
    fields: dict[int, Value]
    body: bytes = b""


def pack(message: Message) -> bytes:
    """As it goes over the wire."""
    fields = b""
    for code, value in message.fields.items():
        kind = FIELD_TYPES[code]
        fields += _padding(fields, 8) + bytes([code, 1]) + kind.encode() + b"\0"
        fields += (_padding(fields, 4) if kind != "g" else b"") + _value(kind, value)
    head = HEADER.pack(b"l", message.kind, 0, 1, len(message.body), message.serial, len(fields))
    return head + fields + _padding(fields, 8) + message.body


def unpack(data: bytes) -> tuple[Message, bytes] | None:
    """The first message of what came, and the rest; None if it is not whole yet."""
    if len(data) < HEADER.size:
        return None
    _, kind, _, _, body, serial, length = HEADER.unpack_from(data)
    begin = HEADER.size + length + -length % 8
    if len(data) < begin + body:
        return None
    found = _fields(data[HEADER.size : HEADER.size + length])
    return Message(kind, serial, found, data[begin : begin + body]), data[begin + body :]


def _fields(data: bytes) -> dict[int, Value]:
    """An array of (code, variant): each begins at a multiple of 8."""
    found: dict[int, Value] = {}
    at = 0
    while at < len(data):
        at += -at % 8
        code, kind = data[at], chr(data[at + 2])
        at += 4
        if kind == "g":
            length = data[at]
            at += 1
        else:
            at += -at % 4
            (length,) = struct.unpack_from("<I", data, at)
            at += 4
        if kind == "u":
            found[code] = length
        else:
            found[code] = data[at : at + length].decode()
            at += length + 1
    return found


def _padding(before: bytes, multiple: int) -> bytes:
    return bytes(-len(before) % multiple)


def _value(kind: str, value: Value) -> bytes:
    if isinstance(value, int):
        return struct.pack("<I", value)
    length = struct.pack("<B" if kind == "g" else "<I", len(value.encode()))
    return length + value.encode() + b"\0"


@dataclass
class Client:
    """A connection, and the ends of the locks that it holds."""

    connection: socket.socket
    locks: list[int] = field(default_factory=list)
    serial: int = 0

    def serve(self) -> None:
        """Answer until it goes."""
        if not self._welcome():
            return
        data = b""
        while more := self.connection.recv(65536):
            data += more
            while found := unpack(data):
                message, data = found
                if message.kind == CALL:
                    self._answer(message)

    def announce(self) -> None:
        """Tell it that the node shuts down."""
        fields: dict[int, Value] = {
            OF_PATH: PATH, OF_INTERFACE: MANAGER, OF_MEMBER: "PrepareForShutdown",
            OF_SENDER: NAME, OF_SIGNATURE: "b",
        }  # fmt: skip
        self._send(SIGNAL, fields, YES)

    def _welcome(self) -> bool:
        """The lines before the first message: whoever reaches the socket is root of the machine."""
        with self.connection.makefile("rb", buffering=0) as lines:
            for line in lines:
                words = line.strip(b"\0\r\n").split()
                if words[:1] == [b"BEGIN"]:
                    return True
                if words[:2] == [b"AUTH", b"EXTERNAL"]:
                    self.connection.sendall(f"OK {GUID}\r\n".encode())
                elif words == [b"NEGOTIATE_UNIX_FD"]:
                    self.connection.sendall(b"AGREE_UNIX_FD\r\n")
                elif words:
                    self.connection.sendall(b"REJECTED EXTERNAL\r\n")
        return False

    def _answer(self, call: Message) -> None:
        reply: dict[int, Value] = {OF_SERIAL: call.serial, OF_DESTINATION: CLIENT}
        match call.fields.get(OF_INTERFACE), call.fields.get(OF_MEMBER):
            case "org.freedesktop.DBus", "Hello":
                name = struct.pack("<I", len(CLIENT)) + CLIENT.encode() + b"\0"
                self._send(RETURN, {**reply, OF_SENDER: BUS, OF_SIGNATURE: "s"}, name)
            case "org.freedesktop.DBus", "AddMatch" | "RemoveMatch":
                self._send(RETURN, {**reply, OF_SENDER: BUS})
            case "org.freedesktop.DBus.Properties", "Get":
                delay = b"\1t\0" + bytes(5) + struct.pack("<Q", DELAY_MICROSECONDS)
                self._send(RETURN, {**reply, OF_SENDER: NAME, OF_SIGNATURE: "v"}, delay)
            case "org.freedesktop.login1.Manager", "Inhibit":
                ours, its = os.pipe()
                self.locks.append(ours)
                fields = {**reply, OF_SENDER: NAME, OF_SIGNATURE: "h", OF_DESCRIPTORS: 1}
                self._send(RETURN, fields, struct.pack("<I", 0), descriptors=[its])
                os.close(its)
                sys.stdout.write(f"{HELD}\n")
                sys.stdout.flush()
            case _:
                unknown = f"{BUS}.Error.UnknownMethod"
                self._send(ERROR, {**reply, OF_SENDER: BUS, OF_ERROR: unknown})

    def _send(
        self, kind: int, fields: dict[int, Value], body: bytes = b"", *,
        descriptors: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.serial += 1
        data = pack(Message(kind, self.serial, fields, body))
        socket.send_fds(self.connection, [data], descriptors)


def wait_for_release(locks: list[int]) -> None:
    """Until nobody holds the other ends any more."""
    for lock in locks:
        select.select([lock], [], [])
        os.close(lock)


def main(path: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    Path(path).parent.mkdir(exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    clients: list[Client] = []
    threading.Thread(target=accept, args=(server, clients), daemon=True).start()
    signal.sigwait([signal.SIGUSR1])
    for client in clients:
        if client.locks:
            client.announce()
    wait_for_release([lock for client in clients for lock in client.locks])


def accept(server: socket.socket, clients: list[Client]) -> None:
    """Serve whoever comes, until the process ends."""
    while True:
        client = Client(server.accept()[0])
        clients.append(client)
        threading.Thread(target=client.serve, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
