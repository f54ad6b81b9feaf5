"""Servers and clients on sockets that live in other namespaces, without a process there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pycni.kernel import namespaces
from pycni.lab.topology import NETNS_DIR

ANSWER_SECONDS = 2.0
CHUNK = 1 << 16

TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
EVERY_ADDRESS = {4: "0.0.0.0", 6: "::"}


@contextmanager
def greets(netns: str, protocol: str, port: int, *, family: int) -> Iterator[None]:
    """A server in a namespace that tells every client who the client is."""
    with _socket(netns, protocol, family) as server:
        server.bind((EVERY_ADDRESS[family], port))
        server.settimeout(0.1)
        if protocol == "tcp":
            server.listen()
        stop = threading.Event()
        thread = threading.Thread(target=_greet, args=(server, protocol, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def greeting(netns: str, protocol: str, address: str, port: int) -> str | None:
    """Who a server says a client in a namespace is; None if it does not answer."""
    with _socket(netns, protocol, 6 if ":" in address else 4) as client:
        client.settimeout(ANSWER_SECONDS)
        try:
            client.connect((address, port))
            client.send(b"who am I?")
            return client.recv(CHUNK).decode() or None
        except OSError:
            return None


def rates(source: str, target: str, address: str, *, seconds: float) -> list[float]:
    """Mbit/s that a TCP stream brings from one namespace to another, of each fifth of `seconds`."""
    family = 6 if ":" in address else 4
    with _socket(target, "tcp", family) as server, _socket(source, "tcp", family) as client:
        server.bind((EVERY_ADDRESS[family], 0))
        server.listen()
        client.connect((address, server.getsockname()[1]))
        receiver, _ = server.accept()
        stop = threading.Event()
        thread = threading.Thread(target=_flood, args=(client, stop), daemon=True)
        thread.start()
        try:
            with receiver:
                return [_rate(receiver, seconds / 5) for _ in range(5)]
        finally:
            stop.set()
            with suppress(OSError):  # the receiver's end was noticed already
                client.shutdown(socket.SHUT_RDWR)
            thread.join()


def _greet(server: socket.socket, protocol: str, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            if protocol == "tcp":
                connection, peer = server.accept()
                with connection:
                    connection.settimeout(ANSWER_SECONDS)
                    connection.recv(CHUNK)
                    connection.send(peer[0].encode())
            else:
                _, peer = server.recvfrom(CHUNK)
                server.sendto(peer[0].encode(), peer)
        except OSError:  # nobody came, or went away
            continue


def _flood(client: socket.socket, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            client.sendall(bytes(CHUNK))
    except OSError:  # shut down
        return


def _rate(receiver: socket.socket, seconds: float) -> float:
    begin, total = time.monotonic(), 0
    receiver.settimeout(seconds)
    while (now := time.monotonic()) < begin + seconds:
        try:
            total += len(receiver.recv(CHUNK))
        except TimeoutError:
            continue
    return total * 8 / 1e6 / (now - begin)


def _socket(netns: str, protocol: str, family: int) -> socket.socket:
    with open(NETNS_DIR / netns) as namespace:
        made = namespaces.inside(
            namespace.fileno(), lambda: socket.socket(FAMILIES[family], TYPES[protocol])
        )
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
