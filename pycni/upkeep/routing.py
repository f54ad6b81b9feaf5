# SPDX-License-Identifier: Apache-2.0
"""Part "routes": the cluster's networks lead to the overlay device."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault
from pycni.kernel.routes import Route
from pycni.node.overlay import DEVICE
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "routes"


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Routes of others by the device are no fault."""
    for route in _missing(d, seen):
        yield Fault(PART, f"the route to {route.dst} by {DEVICE}", "gone")


def mend(d: Description, seen: Seen) -> None:
    """Add what is missing."""
    for route in _missing(d, seen):
        seen.ipr.replace_route(route)


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
