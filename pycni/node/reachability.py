# SPDX-License-Identifier: Apache-2.0
"""Whether other nodes answer: through the overlay, and beside it.

An agent sends each other node one echo request to the gateway of its pods, which goes as packets
between pods do, and one to its underlay address. Who answers the second and not the first is up,
and something between the nodes eats VXLAN. This module decides when to ask and what answers mean:
it is pure, without sockets and clocks. Times are seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from pycni.cluster import IPAddress
from pycni.faults import Fault, Weight
from pycni.stores import DIRECT, IPIP, VXLAN, NodeRecord

PART = "reachability"
OVERLAY, BESIDE = "overlay", "beside"

RATE = 10.0
"""Nodes asked in a second, at most."""
BURST = 1.0
"""Seconds of which the requests may be sent at once."""
SENT_TO = 120.0
"""Seconds for which a node counts as one that this node sends to."""
MISSES = 3
"""Requests without an answer, one after the other, that make a node one that does not answer."""
AGAIN = 2.0
"""Seconds until a node is asked again that did not answer, before MISSES are reached."""
FIRST = 3.0
"""Seconds within which a new node is asked first; longer if there are many."""
NAMED = 20
"""Nodes that faults name one by one."""


class Schedule:
    """Which node is asked when. A node that packets are sent to is asked each `interval` seconds;
    the others too, if there are not too many for RATE."""

    def __init__(
        self,
        interval: float,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._interval = interval
        self._uniform = uniform
        self._due: dict[IPAddress, float] = {}
        self._queue: list[tuple[float, int, IPAddress]] = []
        """Times may be outdated: `_due` counts. The number only keeps addresses from being
        compared."""
        self._pushed = 0
        self._sent_to: dict[IPAddress, float] = {}
        self._free = 0.0
        """From when on RATE allows the next."""

    @property
    def longest(self) -> float:
        """Seconds between two requests to a node that nothing is sent to: half of RATE is for
        those."""
        return max(self._interval, len(self._due) / (RATE / 2))

    def set_nodes(self, nodes: Collection[IPAddress], now: float) -> None:
        """These are the other nodes now."""
        for gone in self._due.keys() - set(nodes):
            del self._due[gone]
            self._sent_to.pop(gone, None)
        spread = max(FIRST, len(nodes) / RATE)
        for node in nodes:
            if node not in self._due:
                self._put(node, now + self._uniform(0.0, spread))

    def sent_to(self, nodes: Iterable[IPAddress], now: float) -> None:
        """Packets were sent to these nodes just now."""
        for node in nodes:
            if node in self._due:
                self._sent_to[node] = now
                if self._due[node] > now + self._interval:
                    self._put(node, now + self._uniform(0.0, self._interval))

    def take(self, now: float) -> IPAddress | None:
        """A node to ask now; its next time is set. None if there is none yet."""
        if now < self._free:
            return None
        while self._queue and self._queue[0][0] <= now:
            due, _, node = heapq.heappop(self._queue)
            if self._due.get(node) != due:
                continue
            recent = now - self._sent_to.get(node, -SENT_TO) < SENT_TO
            self._put(node, now + (self._interval if recent else self.longest))
            self._free = max(self._free, now - BURST) + 1 / RATE
            return node
        return None

    def hasten(self, node: IPAddress, now: float) -> None:
        """Ask a node again soon."""
        if node in self._due:
            self._put(node, min(self._due[node], now + AGAIN))

    def wait(self, now: float) -> float:
        """Seconds until `take` may give a node."""
        first = self._queue[0][0] if self._queue else now + self._interval
        return max(0.0, max(first, self._free) - now)

    def _put(self, node: IPAddress, due: float) -> None:
        self._due[node] = due
        self._pushed += 1
        heapq.heappush(self._queue, (due, self._pushed, node))


@dataclass(slots=True)
class Way:
    """One way to a node: what became of the requests on it."""

    answered: float | None = None
    """When the last answer came."""
    misses: int = 0
    """Requests without an answer since then."""

    @property
    def works(self) -> bool | None:
        """None if that is not known yet."""
        if self.misses >= MISSES:
            return False
        return None if self.answered is None else True


@dataclass(slots=True)
class Peer:
    """Another node."""

    record: NodeRecord
    overlay: Way = field(default_factory=Way)
    beside: Way = field(default_factory=Way)

    @property
    def name(self) -> str:
        return self.record.name

    def way(self, name: str) -> Way:
        """OVERLAY or BESIDE."""
        return self.overlay if name == OVERLAY else self.beside

    @property
    def forwards(self) -> bool | None:
        """Whether packets reach its pods' side, and come back."""
        return self.overlay.works

    @property
    def answers(self) -> bool | None:
        """Whether it answers at its underlay address."""
        return self.beside.works

    @property
    def seen(self) -> float | None:
        """When anything came back."""
        times = (way.answered for way in (self.overlay, self.beside))
        return max((one for one in times if one is not None), default=None)

    @property
    def row(self) -> dict[str, Any]:
        """For the agent's report."""
        return {
            "name": self.name,
            "forwards": self.forwards,
            "answers": self.answers,
            "seen": self.seen,
        }


class Local(NamedTuple):
    """Something wrong on this node that may keep it from others."""

    row: str
    """Of `pycni status`."""
    cause: str
    beside: bool
    """Whether it may stop what is sent beside the overlay, too."""
    node: str = ""
    """The only node that it keeps this one from; empty: all of them."""


def faults(
    rows: Iterable[Mapping[str, Any]],
    *,
    port: int,
    silent: Collection[str],
    modes: Mapping[str, str] = MappingProxyType({}),
    local: Sequence[Local] = (),
) -> list[Fault]:
    """What is wrong with other nodes, by rows of the agent's report. `modes`: how packets to them
    leave, by name. `local`: what is wrong here, the first cause first; it is named before anything
    is said of others.

    A node that does not answer at all is none of this node's faults if its agent is `silent`, too:
    it is down.
    """
    found = []
    for row in rows:
        name, forwards, answers = (row.get(key) for key in ("name", "forwards", "answers"))
        if forwards is not False:
            continue
        may_be = (one for one in local if one.node in ("", name) and (one.beside or answers))
        here = next(may_be, None)
        if here is not None and (answers or name not in silent):
            found.append(_kept_here(str(name), here, answers=bool(answers)))
        elif answers:
            found.append(_kept_outside(str(name), modes.get(str(name), VXLAN), port))
        elif name not in silent:
            found.append(_lost(str(name)))
    return found[:NAMED]


def _kept_here(name: str, here: Local, *, answers: bool) -> Fault:
    how = " through the overlay, though it answers beside it" if answers else " in any way"
    return _unreached(
        name,
        f"{how}; this node's row {here.row} may say why: {here.cause}",
        f"first do what the row {here.row} says; if {name} is still not reached a minute later, "
        f"look again here, and on {name}: pycni status",
    )


def _kept_outside(name: str, mode: str, port: int) -> Fault:
    if mode == DIRECT:
        return _unreached(
            name,
            " without VXLAN, though it answers beside it: something between the nodes drops "
            "packets with addresses of pods, or one of the two dataplanes does not work",
            "let packets with pods' addresses pass between the nodes (in clouds: switch the check "
            f'of sources off); or set encap = "auto" on both. On {name}, too: pycni status',
        )
    if mode == IPIP:
        what, means, other = "IPIP", "IP protocols 4 and 41", '; or set encap = "auto" on both. On'
    else:
        what, means, other = "VXLAN", f"UDP port {port}", "; on"
    return _unreached(
        name,
        " through the overlay, though it answers beside it: something between the nodes, or at "
        f"either end, drops {what} ({means}), or one of the two dataplanes does not work",
        f"let {means} pass between the nodes, in both directions: at this one, at {name}, and on "
        f"the way{other} {name}, too: pycni status",
    )


def _lost(name: str) -> Fault:
    return _unreached(
        name,
        ", neither through the overlay nor beside it",
        f"look at {name}, at this node's way to it, and at the network between; if it is gone for "
        f"good: pycni forget {name}, or in Kubernetes: kubectl delete node {name}",
    )


def _unreached(name: str, how: str, todo: str) -> Fault:
    return Fault(PART, f"node {name}", f"not reached{how}", todo, Weight.DEGRADED)
