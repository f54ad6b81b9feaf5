# SPDX-License-Identifier: Apache-2.0
"""Questions from namespaces to reflectors, all the time, and what came of them.

Starts the verbs `reflect` and `watch` of support/traffic. Both end with this process.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pycni.lab import processes
from support.flows import program

END_SECONDS = 60.0


@dataclass(frozen=True)
class Flow:
    """Questions on one way to one address."""

    way: str
    """Such as "pod to pod"."""
    nodes: frozenset[str]
    """Those whose damage it may suffer from."""
    target: str
    """`ADDRESS,PORT` of a reflector."""


@dataclass(frozen=True)
class Heard:
    """What came of a flow. Moments are of CLOCK_MONOTONIC."""

    flow: Flow
    asked: int
    lost: tuple[float, ...] = ()
    """When those were that left and had no answer."""
    unsent: tuple[tuple[float, str], ...] = ()
    """When those were that could not be sent, and why (the name of an errno)."""
    unread: int = 0
    """Answers that arrived while the receive buffer was full."""

    @property
    def failed(self) -> list[float]:
        """The moments of all questions without an answer."""
        return [*self.lost, *(moment for moment, _ in self.unsent)]


@dataclass(frozen=True)
class Reflected:
    """What reflectors say in the end."""

    came: int
    unanswered: int
    """Answers that could not be sent."""
    unread: int
    """Questions that arrived while the receive buffer was full."""


class Traffic:
    """Traffic that flows until `end`."""

    def __init__(self) -> None:
        self._watchers: list[tuple[Sequence[Flow], subprocess.Popen[bytes]]] = []

    def start(
        self, netns: str, flows: Sequence[Flow], stack: ExitStack, *, patience: float = 3.0
    ) -> None:
        """Ask from one namespace; `patience`: seconds to wait for the last answers."""
        targets = [flow.target for flow in flows]
        process = _started(netns, "watch", *targets, "--patience", patience)
        stack.callback(_kill, process)
        self._watchers.append((flows, process))

    def end(self) -> list[Heard]:
        """Stop asking; what came of all flows."""
        for _, process in self._watchers:
            _tell(process)
        return [one for flows, process in self._watchers for one in _heard(flows, process)]


@contextmanager
def reflecting(netns: str, port: int, addresses: Sequence[str]) -> Iterator[Reflector]:
    """A reflector at addresses of a namespace, while the block runs."""
    process = _started(netns, "reflect", port, *addresses)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, f"no reflector at {' '.join(addresses)} port {port}"
        yield Reflector(process)
    finally:
        _kill(process)


class Reflector:
    """One that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def end(self) -> Reflected:
        """Stop it; what it has seen."""
        _tell(self._process)
        said, _ = self._process.communicate(timeout=END_SECONDS)
        return Reflected(**json.loads(said))


def _heard(flows: Sequence[Flow], process: subprocess.Popen[bytes]) -> Iterator[Heard]:
    said, _ = process.communicate(timeout=END_SECONDS)
    found: list[dict[str, Any]] = json.loads(said)
    for flow, one in zip(flows, found, strict=True):
        unsent = tuple((moment, why) for moment, why in one["unsent"])
        yield Heard(flow, one["asked"], tuple(one["lost"]), unsent, one["unread"])


def _started(netns: str, *words: object) -> subprocess.Popen[bytes]:
    command = processes.inside(netns, program(*words))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with process:
        process.kill()
