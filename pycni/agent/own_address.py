# SPDX-License-Identifier: Apache-2.0
"""Follows this node's addresses: where the others send, and what they are told.

While the VTEP is there the node stays, whatever else changes: the other nodes reach it at the
address they know. If it is gone for PATIENCE, the node moves to the one that came, by a setup, as
at the next start of the agent. Other addresses that came or went are told to the store. What else
changes of the underlay, the keeper follows (upkeep/uplink.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pycni import locks
from pycni.agent.budget import Rest
from pycni.agent.known import Known
from pycni.agent.loops import Run
from pycni.cluster import IPAddress
from pycni.errors import SetupError
from pycni.kernel.fib import PLACE_GROUPS, Fib
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.node import modes, underlay, uplink
from pycni.node.record import Node
from pycni.node.uplink import Wish
from pycni.settings import Settings
from pycni.setup import provision
from pycni.stores import Former, Reach, machine_identity, machine_instance, open_store

LOOK = 5.0
"""Seconds between two looks at whether to stop. The process does not wait for it."""
SPACING = 1.0
"""Seconds, at least, between two looks at the kernel."""
PAUSE = 0.2
"""Seconds after an event: a network manager changes several things at a time."""
PATIENCE = 5.0
"""Seconds for which the VTEP may be gone: an address that comes back is no move."""
REVIEW = 30.0
"""Seconds until the kernel is asked without an event."""

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run, *, known: Known, moved: Callable[[], object]) -> None:
    """Until the agent stops, in the node's namespace; calls `moved` after each move.

    Raises PycniError, LoaderError or OSError.
    """
    with Fib(PLACE_GROUPS) as fib, Rtnl() as ipr:
        place, rest = Place(settings, ipr, known), Rest(run.budget)
        while not run.stopping:
            now = time.monotonic()
            found = place.look(now)
            if found is not None:
                log.info("moving vtep=%s uplink=%s", quoted(found.vtep), quoted(found.ifname))
                provision.setup(settings)
                moved()
            place.announce()
            run.well()
            run.wait(max(SPACING, rest.due()) - PAUSE)
            _wait(fib, run, until=place.next_look(now))


def _wait(fib: Fib, run: Run, *, until: float) -> None:
    """Until something changed, and nothing does for a moment, or the time is over."""
    while fib.changes() == [] and not run.stopping and time.monotonic() < until:
        fib.wait(min(LOOK, max(0.0, until - time.monotonic())))
    run.wait(PAUSE)
    fib.changes()


@dataclass
class Place:
    """This node's place in the underlay, and what was last seen of it."""

    settings: Settings
    ipr: Rtnl
    known: Known
    """Nodes as the store lists them: to list them all once more takes memory and time."""
    patient_until: float | None = None
    """When the node moves to another address if its own stays away; None: it is there."""
    _addresses: list[IPAddress] = field(default_factory=list)
    _accepts: tuple[str, ...] = ()
    _announced: tuple[list[IPAddress], tuple[str, ...]] | None = None
    _problem: str = ""

    def look(self, now: float) -> uplink.Uplink | None:
        """Where this node has to move; None if it has not to, or there is no place.

        Never an address of the other family: the other nodes have none of that family. `now` is in
        seconds of any clock. Raises NotAvailable or OSError.
        """
        node = Node.load(self.settings)
        around = underlay.look(self.ipr)
        self._addresses = around.own_addresses(self.settings.cluster.cidrs, node.vtep)
        self._accepts = modes.accepts(node)
        if around.held(node.vtep) is not None:
            if self._problem:
                log.info("address is back vtep=%s", quoted(node.vtep))
            self._problem, self.patient_until = "", None
            return None
        if self.patient_until is None:
            self.patient_until = now + PATIENCE
        try:
            found = uplink.choose(around, Wish.of(self.settings, node))
        except SetupError as error:
            self._tell(node.vtep, error.message)
            return None
        if found.vtep.version != node.vtep.version:
            self._tell(node.vtep, f"there is no IPv{node.vtep.version} address to move to")
            return None
        if now < self.patient_until:
            return None
        self.patient_until = None
        return found

    def next_look(self, now: float) -> float:
        """When to look again without an event."""
        if self.patient_until is not None and self.patient_until > now:
            return self.patient_until
        return now + (REVIEW if self.known.nodes is not None else SPACING)

    def announce(self) -> None:
        """Tell the store of addresses that came or went since the last look, and of what this node
        accepts, once it has listed this node. Raises PycniError."""
        now = list(self._addresses), self._accepts
        if self._announced == now or self.patient_until is not None:
            return
        nodes = self.known.nodes
        if nodes is None:
            return
        # a setup that is under way writes its record first: what its programs take, after it
        with locks.network_lock(self.settings.run_dir, shared=True):
            self._accepts = modes.accepts(Node.load(self.settings))
        now = list(self._addresses), self._accepts
        own = next((one for one in nodes if one.name == self.settings.node_name), None)
        if own is not None and (list(own.addresses), own.accepts) != now:
            store = open_store(self.settings.store_url, self.settings.cluster, create=False)
            store.register(
                own.name,
                own.vtep,
                identity=machine_identity(),
                instance=machine_instance(),
                reach=Reach(tuple(self._addresses), self._accepts),
                had=Former(own.pod_cidrs, own.blocks, stays=True),
            )
            log.info("addresses told addresses=%s accepts=%s",
                     quoted(",".join(map(str, self._addresses))),
                     quoted(",".join(self._accepts)))  # fmt: skip
        self._announced = now

    def _tell(self, vtep: IPAddress, problem: str) -> None:
        if problem != self._problem:
            log.warning("address gone vtep=%s error=%s", quoted(vtep), quoted(problem))
        self._problem = problem
