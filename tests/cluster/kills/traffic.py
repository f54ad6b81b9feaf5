# SPDX-License-Identifier: Apache-2.0
"""Questions between pods all the time, in both families, and each of them accounted for.

Every pod asks every other, on its node and on others. The programs run in the pods' network
namespaces and outside of their containers, so nothing of them depends on what is killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cluster import proc
from pycni.errors import PycniError
from support.asking import Flow, Heard, Reflected, Reflector, Traffic, reflecting

PORT = 7000
PATIENCE = 10.0
SHOWN = 6
"""Lines about flows that lost something."""


@dataclass(frozen=True)
class Place:
    """A pod that asks and answers."""

    name: str
    node: str
    uid: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Balance:
    """What came of all questions between some pods."""

    heard: tuple[Heard, ...]
    reflected: tuple[Reflected, ...]
    begun: float
    """CLOCK_MONOTONIC."""

    @property
    def asked(self) -> int:
        return sum(one.asked for one in self.heard)

    @property
    def lost(self) -> int:
        return sum(len(one.lost) for one in self.heard)

    @property
    def unsent(self) -> int:
        """Questions and answers that could not be sent."""
        return sum(len(one.unsent) for one in self.heard) + sum(
            one.unanswered for one in self.reflected
        )

    @property
    def unread(self) -> int:
        """Questions and answers that arrived, and found the receive buffer full."""
        there = sum(one.unread for one in self.reflected)
        return there + sum(one.unread for one in self.heard)

    def __str__(self) -> str:
        silent = sum(one.asked == 0 for one in self.heard)
        return (
            f"{len(self.heard)} flows, {self.asked} questions: {self.lost} lost, "
            f"{self.unsent} not sent, {self.unread} not read" + f", {silent} silent" * bool(silent)
        )

    def faults(self) -> list[str]:
        """A line for each flow that was not whole; empty if all were, and there were any."""
        found = [_told(one, self.begun) for one in self.heard if one.failed or not one.asked]
        if self.unsent or self.unread:
            found.append(f"{self.unsent} not sent, {self.unread} not read")
        more = len(found) - SHOWN
        return found[:SHOWN] + [f"and {more} more"] * (more > 0) or ["no flow"] * (not self.heard)


class Meter:
    """Traffic that flows, until its balance is drawn."""

    def __init__(self, traffic: Traffic, reflectors: Sequence[Reflector], begun: float) -> None:
        self._traffic = traffic
        self._reflectors = reflectors
        self._begun = begun

    def end(self) -> Balance:
        """Stop asking, wait for the last answers."""
        heard = self._traffic.end()
        reflected = [one.end() for one in self._reflectors]
        return Balance(tuple(heard), tuple(reflected), self._begun)


@contextmanager
def flowing(places: Sequence[Place], *, now: float) -> Iterator[Meter]:
    """Questions from every pod to all others; all programs end with the block.

    `now`: CLOCK_MONOTONIC. Raises PycniError if a pod does not run.
    """
    traffic = Traffic()
    with ExitStack() as stack:
        reflectors = [
            stack.enter_context(reflecting(namespace(one), PORT, one.addresses)) for one in places
        ]
        for one in places:
            traffic.start(namespace(one), flows(one, places), stack, patience=PATIENCE)
        yield Meter(traffic, reflectors, now)


def flows(source: Place, places: Sequence[Place]) -> list[Flow]:
    """From a pod to every address of all others."""
    return [
        Flow(f"{source.name} -> {target.name} {address}", frozenset((source.node, target.node)),
             f"{address},{PORT}")
        for target in places
        if target != source
        for address in target.addresses
    ]  # fmt: skip


def namespace(place: Place) -> str:
    """The path of a pod's network namespace. Raises PycniError if no process of it runs."""
    for pid in proc.everybody():
        if f"pod{place.uid}" in proc.control_groups(pid):
            return f"/proc/{pid}/ns/net"
    raise PycniError(
        f"no process of the pod {place.name} runs",
        hint="see: python -m cluster kubectl describe pods --all-namespaces",
    )


def _told(heard: Heard, begun: float) -> str:
    moments = sorted(heard.failed)
    when = f", from {moments[0] - begun:.2f} s to {moments[-1] - begun:.2f} s" if moments else ""
    reasons = sorted({why for _, why in heard.unsent})
    unsent = f" and {len(heard.unsent)} not sent ({', '.join(reasons)})" if reasons else ""
    return f"{heard.flow.way}: {len(heard.lost)} of {heard.asked} lost{unsent}{when}"
