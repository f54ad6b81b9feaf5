# SPDX-License-Identifier: Apache-2.0
"""Private etcd servers on loopback, of Debian's etcd-server; each test has a prefix of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pycni.errors import PycniError
from pycni.stores.etcd.gateway import Gateway
from pycni.stores.etcd.keys import to_base64
from pycni.stores.etcd.location import Location

READY_SECONDS = 30.0
END_SECONDS = 10.0


@dataclass
class Etcd:
    """A server; `start` again after `stop` keeps the data."""

    directory: Path
    client_port: int
    peer_port: int
    options: tuple[str, ...] = ()
    scheme: str = "http"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    def url(self, prefix: str = "", **options: object) -> str:
        """A store URL with a prefix that nobody else has, unless one is given."""
        kind = "etcds" if self.scheme == "https" else "etcd"
        query = "&".join(f"{key}={value}" for key, value in options.items())
        return f"{kind}://{self.endpoint}/{prefix or uuid.uuid4().hex}" + (query and f"?{query}")

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self.peer_port}"
        client = f"{self.scheme}://{self.endpoint}"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("etcd", "--name=test", f"--data-dir={self.directory}/data"),
                    *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
                    *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
                    *(f"--initial-cluster=test={peer}", "--logger=zap"),
                    *("--heartbeat-interval=10", "--election-timeout=100", *self.options),
                ],
                stdout=log,
                stderr=log,
            )

    def wait(self, url: str = "") -> None:
        """Until it answers."""
        gateway = Gateway(Location.parse(url or self.url()))
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                gateway.call("kv/range", {"key": to_base64("ready?")})
                return
            except PycniError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(END_SECONDS)
            self._process = None


@contextmanager
def running(directory: Path, *options: str, scheme: str = "http") -> Iterator[Etcd]:
    """A server that was started, though it may not answer yet."""
    if shutil.which("etcd") is None:
        pytest.skip("missing: etcd (apt install etcd-server)")
    client, peer = _free_ports(2)
    etcd = Etcd(directory, client, peer, options=options, scheme=scheme)
    try:
        etcd.start()
        yield etcd
    finally:
        etcd.stop()


@contextmanager
def answers(status: int, body: bytes) -> Iterator[str]:
    """Something else that listens: gives every request the same answer. Gives the endpoint."""
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(head + body)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
