# SPDX-License-Identifier: Apache-2.0
"""Part "routes": the cluster's networks lead to the overlay device."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.cluster import gateway
from pycni.faults import Fault
from pycni.kernel.routes import Route
from pycni.node import overlay
from pycni.node.overlay import DEVICE
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "routes"


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Routes of others by the device are no fault, but what overrules ours is."""
    missing = _missing(d, seen)
    for route in missing:
        todo = overlay.todo_of(route.dst.version)
        yield Fault(PART, f"the route to {route.dst} by {DEVICE}", "gone", todo)
    if not missing:
        yield from _overruled(d, seen)


def mend(d: Description, seen: Seen) -> None:
    """Add what is missing."""
    for route in _missing(d, seen):
        if not overlay.todo_of(route.dst.version):
            seen.ipr.replace_route(route)


def _overruled(d: Description, seen: Seen) -> Iterator[Fault]:
    """Rules and routes of others that lead packets for pods somewhere else."""
    link = seen.link(DEVICE)
    for cidr in d.node.pod_cidrs if link is not None and link.is_up else ():
        pod = gateway(cidr) + 1
        found = seen.ipr.route_to(pod)
        if link is not None and (found is None or found.ifindex != link.ifindex):
            way = None if found is None else seen.ipr.link_at(found.ifindex)
            where = f"out of {way.ifname}" if way is not None else "nowhere"
            todo = f"see who made the rule or route: ip rule; ip route get {pod}"
            yield Fault(PART, f"the way of packets to {cidr}", f"{where}, not {DEVICE}", todo)


def _missing(d: Description, seen: Seen) -> list[Route]:
    link = seen.link(DEVICE)
    if link is None:
        return []
    wanted = d.routes(link.ifindex)
    have = {
        (route.dst, route.gateway, route.source)
        for version in {route.dst.version for route in wanted}
        for route in seen.ipr.routes_by(link.ifindex, version)
    }
    return [route for route in wanted if (route.dst, route.gateway, route.source) not in have]
