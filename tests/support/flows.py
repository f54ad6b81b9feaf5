# SPDX-License-Identifier: Apache-2.0
"""Traffic that tests make: the program of support/traffic, started in a namespace, and its words.

A namespace is a name of a lab's, or a path.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

from pycni.lab import processes
from support.waiting import DEADLINE

TESTS = Path(__file__).parents[1]
START = """
import sys
sys.path.append(sys.argv.pop(1))
from support.traffic.__main__ import main
main()
"""
FAMILIES = (4, 6)
EVERY_ADDRESS = {4: "0.0.0.0", 6: "::"}


def program(*words: object) -> list[str]:
    """The command line that makes traffic; support/traffic/__main__.py has the words."""
    return [sys.executable, "-IS", "-c", START, str(TESTS), *map(str, words)]


class Running:
    """The program while it runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def heard(self) -> Any:
        """The next thing that it says; fails if there is none within DEADLINE."""
        assert self._process.stdout is not None
        assert select([self._process.stdout], [], [], DEADLINE)[0], "the program says nothing"
        return json.loads(self._process.stdout.readline())

    def tell(self) -> None:
        """A line for its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()


@contextmanager
def running(netns: str, *words: object) -> Iterator[Running]:
    """The program, until it is killed at the end."""
    with subprocess.Popen(
        processes.inside(netns, program(*words)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def once(netns: str, *words: object, stdin: bytes = b"") -> Any:
    """Run the program to its end; what it said, None if that was nothing."""
    done = processes.run(netns, program(*words), stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout else None


@contextmanager
def answering(
    netns: str, address: str, port: int = 0, *, protocol: str = "udp"
) -> Iterator[tuple[int, Callable[[], Any]]]:
    """A server in a namespace: its port, and a function for the next request that it heard."""
    with running(netns, "serve", protocol, address, port) as server:
        yield server.heard(), server.heard


def ask(netns: str, address: str, port: int, *, protocol: str = "udp", size: int = 8) -> str | None:
    """Who a server of `answering` says we are, None if it is silent; `size`: of a datagram."""
    seen: str | None = once(netns, "ask", protocol, address, port, "--size", size)
    return seen


@contextmanager
def port_held(netns: str, address: str, port: int) -> Iterator[int]:
    """A process that has a UDP socket; yields its pid."""
    with running(netns, "hold", address, port) as holder:
        assert holder.heard() == port
        yield holder.pid


@contextmanager
def pumping(
    source: str, target: str, to: str, *, size: int = 1 << 20, within: float = 8.0
) -> Iterator[Callable[[], float | None]]:
    """One TCP connection from a namespace to an address in another: a function that sends `size`
    bytes and returns the seconds until the other side has confirmed them all, None if that takes
    longer than `within`."""
    with running(target, "absorb", to) as server:
        words = ("pump", to, server.heard(), "--size", size, "--within", within)
        with running(source, *words) as client:
            assert client.heard() == "ready"

            def send() -> float | None:
                client.tell()
                seconds: float | None = client.heard()
                return seconds

            yield send


def throughput(
    source: str, target: str, to: str, protocol: str, *, seconds: float = 2.0, after: float = 0
) -> float:
    """Bits per second of payload from one namespace to an address in another.

    It flows for `seconds`; what comes in the first, `after` of them, is not counted.
    """
    with running(target, "count", protocol, to, "--after", after) as counter:
        port = counter.heard()
        once(source, "stream", protocol, to, port, "--seconds", seconds)
        seen = counter.heard()
    return float(seen["bytes"]) * 8 / float(seen["seconds"])


def send_datagrams(netns: str, address: str, port: int, payloads: Sequence[bytes]) -> None:
    """Each from a socket of its own family."""
    once(netns, "datagrams", address, port, stdin=_lines(payloads))


def send_frames(netns: str, ifname: str, frames: Sequence[bytes]) -> None:
    """From the Ethernet header on."""
    once(netns, "frames", ifname, stdin=_lines(frames))


def _lines(packets: Sequence[bytes]) -> bytes:
    return "\n".join(packet.hex() for packet in packets).encode()
