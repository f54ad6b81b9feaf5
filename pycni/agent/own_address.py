# SPDX-License-Identifier: Apache-2.0
"""Follows this node's place in the underlay: its VTEP, uplink, MTU, interfaces and addresses.

While the VTEP is there the node stays, whatever else changes: the other nodes reach it at the
address they know. If it is gone for PATIENCE, the node moves to the one that came. An interface
that is made anew, one more interface, or another MTU is followed at once. Each is a setup, as at
the next start of the agent. Addresses that came or went are told to the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from loader import attach
from pycni.agent.loops import Run
from pycni.attachments import hooks
from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.errors import PycniError
from pycni.kernel.fib import PLACE_GROUPS, Fib
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.node import overlay, underlay, uplink
from pycni.node.record import Node
from pycni.node.underlay import Underlay
from pycni.settings import Settings
from pycni.setup import plan, provision
from pycni.stores import machine_identity, open_store

LOOK = 1.0
"""Seconds between two looks at whether to stop, and at least between two looks at the kernel."""
PAUSE = 0.2
"""Seconds after an event: a network manager changes several things at a time."""
PATIENCE = 5.0
"""Seconds for which the VTEP may be gone: an address that comes back is no move."""
REVIEW = 30.0
"""Seconds until the kernel is asked without an event."""

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run, *, moved: Callable[[], object]) -> None:
    """Until the agent stops, in the node's namespace; calls `moved` after each setup.

    Raises PycniError, LoaderError or OSError.
    """
    with Fib(PLACE_GROUPS) as fib, Rtnl() as ipr:
        place = Place(settings, ipr)
        while not run.stopping:
            now = time.monotonic()
            reason = place.look(now)
            if reason:
                log.info("setting up again reason=%s", quoted(reason))
                provision.setup(settings)
                moved()
            place.announce()
            run.well()
            _wait(fib, run, until=place.next_look(now))


def _wait(fib: Fib, run: Run, *, until: float) -> None:
    """Until something changed, and nothing does for a moment, or the time is over."""
    run.wait(LOOK - PAUSE)
    while fib.changes() == [] and not run.stopping and time.monotonic() < until:
        fib.wait(LOOK)
    run.wait(PAUSE)
    fib.changes()


@dataclass
class Place:
    """This node's place in the underlay, and what was last seen of it."""

    settings: Settings
    ipr: Rtnl
    patient_until: float | None = None
    """When the node moves to another address if its own stays away; None: it is there."""
    _others: tuple[IPAddress, ...] = ()
    _others_at: float = -REVIEW
    _outer: tuple[Link, ...] | None = None
    _addresses: list[IPAddress] = field(default_factory=list)
    _announced: list[IPAddress] | None = None
    _problem: str = ""

    def look(self, now: float) -> str:
        """Why setup has to run; empty if it has not to. `now` is in seconds of any clock.

        Raises NotAvailable, LoaderError or OSError.
        """
        node = Node.load(self.settings)
        around = underlay.look(self.ipr)
        self._addresses = around.own_addresses(self.settings.cluster.cidrs, node.vtep)
        wish = plan.wish(self.settings, node)
        try:
            found = uplink.choose(around, wish, others=self._known_others(now))
            mtu = plan.overlay_mtu(self.settings, found)
        except PycniError as error:
            self._tell(error.message)
            if around.held(node.vtep) is None:
                self._leave(now)
            return ""
        if found.vtep != node.vtep:
            return self._moving(found, node, now)
        self._problem, self.patient_until = "", None
        if found.ifname != node.uplink:
            return f"the uplink is {found.ifname}, not {node.uplink}"
        if mtu != node.mtu:
            return f"the uplink {found.ifname} leaves pods an MTU of {mtu}, not {node.mtu}"
        return self._unprepared(around)

    def next_look(self, now: float) -> float:
        """When to look again without an event."""
        if self.patient_until is not None and self.patient_until > now:
            return self.patient_until
        return now + REVIEW

    def announce(self) -> None:
        """Tell the store of addresses that came or went since the last look. Raises PycniError."""
        if self._announced == self._addresses or self.patient_until is not None:
            return
        store = open_store(self.settings.store_url, self.settings.cluster, create=False)
        own = next((one for one in store.nodes() if one.name == self.settings.node_name), None)
        if own is not None and list(own.addresses) != self._addresses:
            store.register(
                own.name, own.vtep, identity=machine_identity(), addresses=self._addresses
            )
            log.info("addresses told addresses=%s", ",".join(map(str, self._addresses)))
        self._announced = list(self._addresses)

    def _moving(self, found: uplink.Uplink, node: Node, now: float) -> str:
        """Why the node moves to another address, if its own was gone for long enough.

        Never to one of the other family: the other nodes have none of that family.
        """
        until = self._leave(now)
        if found.vtep.version != node.vtep.version:
            self._tell(f"there is no IPv{node.vtep.version} address to move to")
            return ""
        if now < until:
            return ""
        self.patient_until = None
        return f"the VTEP {node.vtep} is gone, {found.vtep} of {found.ifname} is there"

    def _leave(self, now: float) -> float:
        """Note that the node's address is not there; returns until when it may come back."""
        if self.patient_until is None:
            self.patient_until = now + PATIENCE
        return self.patient_until

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("no place in the underlay error=%s", quoted(problem))
        self._problem = problem

    def _known_others(self, now: float) -> tuple[IPAddress, ...]:
        if now >= self._others_at + REVIEW:
            with maps.open_vteps(self.settings.pin_root) as table:
                self._others = tuple(vtep for vtep, _ in table.items())
            self._others_at = now
        return self._others

    def _unprepared(self, around: Underlay) -> str:
        """What interfaces lack that came since the last look."""
        outer = around.outer
        if _identities(outer) == _identities(self._outer or ()):
            return ""
        self._outer = outer
        ipv6 = self.settings.cluster.has_family(6)
        wanted = overlay.plan_forwarding([link.ifname for link in outer], ipv6=ipv6)
        if overlay.parameters_before(wanted):
            return "packets are not forwarded on every interface"
        for hook in hooks.wanted_outside(outer):
            if hook.program not in attach.attached(self.ipr, hook.ifindex):
                return f"an interface came without {hook.program}"
        return ""


def _identities(links: Iterable[Link]) -> Sequence[tuple[int, str]]:
    return [(link.ifindex, link.ifname) for link in links]
