# SPDX-License-Identifier: Apache-2.0
"""Which endpoints of a service port a node chooses among, and why not the others. Pure.

Two sets, as kube-proxy has them (pkg/proxy/topology.go): the Cluster set, and the Local one, of the
endpoints on this node. Each is decided by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pycni.services.endpoints import Endpoint
from pycni.services.objects import LOCAL

NOT_READY = "not ready"
TERMINATING = "terminating, and others are ready"
STOPPED = "terminating, and serves no more"
HINTED = "by its hints for clients elsewhere"


@dataclass(frozen=True)
class Place:
    """Where a node is."""

    node: str
    zone: str = ""
    """The Node's label topology.kubernetes.io/zone; empty without one."""


@dataclass(frozen=True)
class Selection:
    """The two sets of a service port on a node."""

    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    passed_over: Mapping[Endpoint, str] = field(default_factory=dict)
    """Endpoints that the Cluster set does not have, and why."""

    def of_policy(self, policy: str) -> tuple[Endpoint, ...]:
        """The set for traffic with a policy."""
        return self.local if policy == LOCAL else self.cluster

    def refusal(self, policy: str) -> str:
        """What happens to a new flow: "reject" if there is no endpoint anywhere, "drop" if all are
        on other nodes and the policy is Local (KEP-2086); empty if there is one."""
        if self.of_policy(policy):
            return ""
        return "drop" if self.cluster else "reject"


def select(endpoints: Sequence[Endpoint], place: Place) -> Selection:
    """Choose."""
    usable, is_ready = _usable(endpoints)
    cluster = _hinted(usable, place) if is_ready else usable
    local, _ = _usable([one for one in endpoints if one.node == place.node])
    # by identity: to hash addresses is most of the work at 100,000 endpoints
    chosen, fit = set(map(id, cluster)), set(map(id, usable))
    passed_over = {
        one: HINTED if id(one) in fit else _unusable(one)
        for one in endpoints
        if id(one) not in chosen
    }
    return Selection(tuple(cluster), tuple(local), passed_over)


def _usable(endpoints: Iterable[Endpoint]) -> tuple[list[Endpoint], bool]:
    """The ready ones, or those that still serve while they end (KEP-1669); whether it is the
    former."""
    ones = list(endpoints)
    if ready := [one for one in ones if one.ready]:
        return ready, True
    return [one for one in ones if one.serving and one.terminating], False


def _hinted(ready: list[Endpoint], place: Place) -> list[Endpoint]:
    """Those that are meant for this node, else for its zone (KEP-3015, KEP-4444). One endpoint
    without a hint switches the hints off, and so does a place that no hint names."""
    return (
        _named(ready, place.node, lambda one: one.nodes)
        or _named(ready, place.zone, lambda one: one.zones)
        or ready
    )


def _named(
    ready: list[Endpoint], name: str, hints: Callable[[Endpoint], frozenset[str] | None]
) -> list[Endpoint]:
    if not name or any(hints(one) is None for one in ready):
        return []
    return [one for one in ready if name in (hints(one) or ())]


def _unusable(one: Endpoint) -> str:
    if not one.terminating:
        return NOT_READY
    return TERMINATING if one.serving else STOPPED
