# SPDX-License-Identifier: Apache-2.0
"""Packets between namespaces, sent and received by this process through sockets opened in each.

ICMP: RFC 792 and RFC 4443. No packet is sent twice, so that a first one lost is seen.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from conformance.namespaces import Netns, within
from conformance.netlink import FAMILIES
from conformance.patience import patient

ICMP_HEADERS = {4: 20 + 8, 6: 40 + 8}
"""Bytes before the payload of an echo request."""

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2
"""ip(7), ipv6(7)."""

WAIT = patient(2.0)
"""Seconds an answer may take."""


def version_of(address: str) -> int:
    return 6 if ":" in address else 4


def pings(netns: Netns | None, address: str, *, size: int = 56, fragment: bool = True) -> bool:
    """Whether one echo request of `size` bytes after the header is answered."""
    family = version_of(address)
    protocol = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
    raw = opened(netns, family, socket.SOCK_RAW, protocol)
    identifier = int.from_bytes(os.urandom(2), "big")
    with raw:
        if not fragment and family == 4:
            raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
        if not fragment and family == 6:
            raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO)
        try:
            raw.connect((address, 0))
            raw.send(_echo_request(family, identifier, bytes(size)))
        except OSError:
            return False
        end = time.monotonic() + WAIT
        while select.select([raw], [], [], max(0, end - time.monotonic()))[0]:
            try:
                packet = raw.recv(1 << 16)
            except OSError:
                return False
            message = packet[(packet[0] & 0xF) * 4 :] if family == 4 else packet
            if message[0] == ECHO_REPLY[family]:
                (its,) = struct.unpack_from("!4xH", message)
                if its == identifier:
                    return True
    return False


def transfer(source: Netns | None, target: Netns | None, address: str, size: int) -> float:
    """Send `size` bytes over TCP to `address` of `target`; returns seconds. Raises OSError."""
    with opened(target, version_of(address), socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen(1)
        listener.settimeout(WAIT)
        got: list[int] = []
        reader = threading.Thread(target=_count, args=(listener, got))
        reader.start()
        begin = time.monotonic()
        with opened(source, version_of(address), socket.SOCK_STREAM) as sender:
            try:
                sender.settimeout(10 * WAIT)
                sender.connect((address, listener.getsockname()[1]))
                sender.sendall(bytes(size))
                sender.shutdown(socket.SHUT_WR)
            finally:
                reader.join(15 * WAIT)
        seconds = time.monotonic() - begin
    if got != [size]:
        raise OSError(f"{got} of {size} bytes arrived")
    return seconds


@contextmanager
def answering(
    netns: Netns | None, address: str, port: int, *, kind: str, word: bytes
) -> Iterator[None]:
    """A server on a port that answers each client with `word`; `kind` is tcp or udp."""
    stream = kind == "tcp"
    server = opened(netns, version_of(address), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    if stream:
        server.listen(8)
    server.settimeout(0.1)
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(server, word, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        server.close()


def asked(netns: Netns | None, address: str, port: int, *, kind: str) -> bytes | None:
    """What a server says; None if nothing answers within a second."""
    stream = kind == "tcp"
    client = opened(netns, version_of(address), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    with client:
        client.settimeout(1.0)
        try:
            client.connect((address, port))
            client.send(b"?")
            return client.recv(64)
        except OSError:
            return None


def opened(netns: Netns | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that lives in a namespace, the caller's if none is named."""

    def make() -> socket.socket:
        return socket.socket(FAMILIES[family], kind, protocol)

    return make() if netns is None else within(netns, make)


def _serve(server: socket.socket, word: bytes, stop: threading.Event) -> None:
    stream = server.type == socket.SOCK_STREAM
    while not stop.is_set():
        try:
            if stream:
                client, _ = server.accept()
                with client:
                    client.settimeout(1.0)
                    client.recv(1)
                    client.sendall(word)
            else:
                _, client_address = server.recvfrom(64)
                server.sendto(word, client_address)
        except OSError:
            continue


def _count(listener: socket.socket, got: list[int]) -> None:
    try:
        client, _ = listener.accept()
    except OSError:
        return
    total = 0
    with client:
        client.settimeout(10 * WAIT)
        while data := client.recv(1 << 18):
            total += len(data)
    got.append(total)


def _echo_request(family: int, identifier: int, payload: bytes) -> bytes:
    def message(checksum: int) -> bytes:
        return struct.pack("!BBHHH", ECHO_REQUEST[family], 0, checksum, identifier, 1) + payload

    return message(0 if family == 6 else _checksum(message(0)))


def _checksum(data: bytes) -> int:
    """RFC 1071; the kernel fills in that of ICMPv6 by itself."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
