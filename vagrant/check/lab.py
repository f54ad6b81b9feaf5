# SPDX-License-Identifier: Apache-2.0
"""The lab of a test: its machines and pods, and what a check of them is."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from check.machines import Failed, Machine

Result = TypeVar("Result")

CHANGE_SECONDS = 300.0
"""For what one node does to be seen by the other."""


@dataclass(frozen=True)
class Check:
    """One thing that holds or does not."""

    name: str
    passed: bool
    found: str = ""


@dataclass
class Lab:
    """Machines, and the pods that the steps have made on them."""

    machines: list[Machine]
    pods: dict[str, Machine] = field(default_factory=dict)
    namespaces: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    mtu: int = 0

    def add(self, name: str, machine: Machine) -> None:
        made = machine.guest("add", name)
        self.pods[name], self.addresses[name] = machine, made["addresses"]
        self.namespaces[name], self.mtu = made["netns"], made["mtu"]

    def on_each(self, work: Callable[[Machine], Result]) -> list[Result]:
        """The same on all machines at once; what it returned for each."""
        with ThreadPoolExecutor(len(self.machines)) as pool:
            return list(pool.map(work, self.machines))

    def echo(self, source: str, *options: object) -> list[dict[str, Any]]:
        machine, netns = self.pods[source], self.namespaces[source]
        answers: list[dict[str, Any]] = machine.peer(netns, "echo", *options)
        return answers


def wait(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + CHANGE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"not within {CHANGE_SECONDS:g} s: {what}")
        time.sleep(1)
