# SPDX-License-Identifier: Apache-2.0
"""Part "direct": packets between nodes without outer headers, where the settings want them."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.faults import Fault, Weight
from pycni.kernel.fib import Fib
from pycni.node import direct, modes
from pycni.node.modes import Mode
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "direct"
NAMED = 5
"""Nodes that faults name one by one."""
TODO = (
    'if that is on purpose, set encap = "auto-direct"; or give this node a route to it without a '
    "router; or, if the routers have routes to the pods of each node, set routers_know_pods = true "
    "on all nodes"
)


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Nodes that are to be reached without a router and are not."""
    if d.settings.encap == direct.ALL and d.node.direct:
        yield from _far(d)


def state(d: Description, seen: Seen) -> object:
    """The nodes, and the next hops, which follow the kernel's routes. Raises NotAvailable or
    OSError."""
    root = d.settings.pin_root
    if d.settings.encap != direct.ALL:
        return None
    with maps.open_nexthops(root) as table:
        near = {vtep for vtep, hop in table.items() if hop.on_link or hop.direct}
    return seen.digest(root, "vteps"), near


def _far(d: Description) -> Iterator[Fault]:
    """The nodes that are behind a router, and may not be reached by it, or on a link that has no
    MACs."""
    try:
        with maps.open_vteps(d.settings.pin_root) as table:
            others = {
                vtep: modes.towards(d.node, modes.accepted(known)) for vtep, known in table.items()
            }
    except NotAvailable:  # programs.py says so
        return
    with Fib(groups=0) as fib:
        paths = fib.paths(others, d.node.vtep)
        links = fib.links({path.ifindex for path in paths.values()})
    names = {other.vtep: other.name for other in d.others}
    far = {
        vtep: path
        for vtep, path in paths.items()
        if (link := links.get(path.ifindex)) is not None
        and not direct.is_on_link(vtep, path, link)
        and not (others[vtep] is Mode.ROUTED and link.is_ethernet)
    }
    for vtep, path in list(far.items())[:NAMED]:
        where = f"behind the router {path.neighbour}"
        if path.neighbour == vtep:
            where = f"on {links[path.ifindex].ifname}, which is no Ethernet"
        found = f"{where}, so packets to it leave as VXLAN"
        yield Fault(PART, f"node {names.get(vtep, vtep)}", found, TODO, Weight.DEGRADED)
    if len(far) > NAMED:
        found = "on no link with this node, either"
        yield Fault(PART, f"each of {len(far) - NAMED} more nodes", found, TODO, Weight.DEGRADED)
