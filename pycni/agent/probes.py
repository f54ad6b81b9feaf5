# SPDX-License-Identifier: Apache-2.0
"""Probes: asks the other nodes, a few times a minute, whether packets get there and back
(node/reachability.py)."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from select import select
from typing import NamedTuple

from pycni.agent.loops import Run
from pycni.cluster import IPAddress, gateway
from pycni.kernel.echo_socket import TOKEN, EchoSocket
from pycni.line_limit import LineLimit
from pycni.logfmt import quoted
from pycni.node.reachability import BESIDE, OVERLAY, Peer, Schedule
from pycni.node.record import Node
from pycni.node.report import PEERS, Report
from pycni.settings import Settings
from pycni.stores import NodeRecord

PATIENCE = 2.0
"""Seconds to wait for an answer."""
LOOK = 1.0
"""Seconds between two looks at whether to stop, and at who the other nodes are."""
PAUSE = 1.0
"""Seconds between two rounds of requests: to wake up for each takes longer than to send it."""
REPORT_CHANGES, REPORT_ALL = 2.0, 30.0
"""Seconds between two reports: if a node began or ceased to answer, and if not; at least."""
REPORT_NODES = 100
"""Nodes that a report may tell of for each second since the one before."""

log = logging.getLogger(__name__)


class Question(NamedTuple):
    """A request that waits for its answer."""

    vtep: IPAddress
    """Of the node that was asked."""
    way: str
    asked: IPAddress
    """The address that must answer."""
    until: float


class Traffic:
    """Which nodes packets were sent to, from the loop that knows to the loop that asks."""

    def __init__(self) -> None:
        self._sent_to: set[IPAddress] = set()
        self._lock = threading.Lock()

    def add(self, vteps: Iterable[IPAddress]) -> None:
        with self._lock:
            self._sent_to |= set(vteps)

    def take(self) -> set[IPAddress]:
        """What was added since the last call."""
        with self._lock:
            taken, self._sent_to = self._sent_to, set()
        return taken


def follow(
    settings: Settings,
    run: Run,
    *,
    others: Callable[[], tuple[NodeRecord, ...]],
    traffic: Traffic,
    report: Report,
) -> None:
    """Until the agent stops, in the node's namespace. `others` gives the other nodes now.

    Raises PycniError, OSError; PermissionError without CAP_NET_RAW.
    """
    asker = Asker(settings.probe_interval)
    while not run.stopping:
        node = Node.load(settings)
        with ExitStack() as stack:
            sockets = {BESIDE: stack.enter_context(EchoSocket(node.vtep))}
            sockets[OVERLAY] = stack.enter_context(EchoSocket(node.gateways[0]))
            asker.sockets = sockets
            while not run.stopping:
                asker.set_nodes(others())
                asker.sent_to(traffic.take())
                asker.ask()
                select(list(sockets.values()), [], [], asker.wait())
                asker.hear()
                run.well()
                if asker.report_is_due():
                    report.put_table(PEERS, asker.rows())
                    if Node.load(settings) != node:
                        break  # it moved: ask from its new address


class Asker:
    """Who was asked, and who answered."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.peers: dict[IPAddress, Peer] = {}
        self.sockets: dict[str, EchoSocket] = {}
        self._nodes: tuple[NodeRecord, ...] = ()
        self._schedule = Schedule(interval)
        self._clock = clock
        self._questions: dict[bytes, Question] = {}
        self._news = True
        self._reported = 0.0
        self._next_round = 0.0
        self._limit = LineLimit(lines=2, subjects=20)

    def set_nodes(self, nodes: tuple[NodeRecord, ...]) -> None:
        """These are the other nodes now."""
        if nodes is self._nodes:
            return
        self._nodes, before = nodes, self.peers
        self.peers = {node.vtep: _peer(node, before.get(node.vtep)) for node in nodes}
        self._schedule.set_nodes(self.peers.keys(), self._clock())
        self._news = True

    def sent_to(self, vteps: Iterable[IPAddress]) -> None:
        """Packets were sent to these nodes."""
        self._schedule.sent_to(vteps, self._clock())

    def ask(self) -> None:
        """Ask the nodes whose time has come, unless some were asked just now."""
        if self._clock() < self._next_round:
            return
        while (vtep := self._schedule.take(self._clock())) is not None:
            self._ask(vtep, BESIDE, vtep)
            self._ask(vtep, OVERLAY, gateway(self.peers[vtep].record.pod_cidrs[0]))
            self._next_round = self._clock() + PAUSE

    def hear(self) -> None:
        """Take what was answered, and what was not in time."""
        for socket in self.sockets.values():
            for sender, token in socket.replies():
                question = self._questions.get(token)
                if question is not None and question.asked == sender:
                    del self._questions[token]
                    self._settle(question, answered=True)
        now = self._clock()
        for token, question in list(self._questions.items()):
            if question.until > now:
                break  # they are in the order of their times
            del self._questions[token]
            self._settle(question, answered=False)

    def wait(self) -> float:
        """Seconds for which there is nothing to do but to hear."""
        now = self._clock()
        first = next(iter(self._questions.values()), None)
        end = LOOK if first is None else max(0.0, first.until - now)
        return min(LOOK, end, max(self._schedule.wait(now), self._next_round - now))

    def report_is_due(self) -> bool:
        """Whether to report now; if so, it counts as done."""
        now = self._clock()
        least = len(self.peers) / REPORT_NODES
        if now - self._reported < max(least, REPORT_CHANGES if self._news else REPORT_ALL):
            return False
        self._reported, self._news = now, False
        return True

    def rows(self) -> Iterator[tuple[str, dict[str, object]]]:
        """What is known of each node, after its VTEP."""
        return ((str(vtep), peer.row) for vtep, peer in self.peers.items())

    def _ask(self, vtep: IPAddress, way: str, address: IPAddress) -> None:
        question = Question(vtep, way, address, self._clock() + PATIENCE)
        token = secrets.token_bytes(TOKEN)
        try:
            self.sockets[way].send(address, token)
        except OSError:  # there is no route, or something here forbids it
            self._settle(question, answered=False)
            return
        self._questions[token] = question

    def _settle(self, question: Question, *, answered: bool) -> None:
        peer = self.peers.get(question.vtep)
        if peer is None:
            return
        before = peer.forwards, peer.answers
        way = peer.way(question.way)
        if answered:
            way.answered, way.misses = self._clock(), 0
        else:
            way.misses += 1
            if way.works is not False:
                self._schedule.hasten(question.vtep, self._clock())
        now = peer.forwards, peer.answers
        if now != before:
            self._news = True
            if before[0] != now[0] and (before[0], now[0]) != (None, True):
                self._tell(question.vtep, peer)

    def _tell(self, vtep: IPAddress, peer: Peer) -> None:
        if self._limit.take(str(vtep)) is None:
            return
        if peer.forwards:
            log.info("node reached again node=%s vtep=%s", quoted(peer.name), quoted(vtep))
        else:
            beside = {True: "yes", False: "no", None: "unknown"}[peer.answers]
            log.warning("node not reached through the overlay node=%s vtep=%s answers_beside=%s",
                        quoted(peer.name), quoted(vtep), quoted(beside))  # fmt: skip


def _peer(node: NodeRecord, before: Peer | None) -> Peer:
    """A node that may have been there before, with what is known of it."""
    if before is None or before.name != node.name:
        return Peer(node)
    before.record = node
    return before
