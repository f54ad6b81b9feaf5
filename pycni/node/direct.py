# SPDX-License-Identifier: Apache-2.0
"""Packets between nodes without outer headers: which nodes get them, and what that changes.

Receive first, send later: a node's record in the store says that it takes such packets, and only
then others send them. A node sends them if its settings say so, to nodes that take them and are on
one link with it, as the kernel's routes say. All others get VXLAN. A node that shall do neither any
more goes on taking them for a while. Pure: no netlink, no maps, no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pycni.cluster import VXLAN_OVERHEAD, IPAddress
from pycni.kernel.fib import Path as Way
from pycni.kernel.links import Link
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import DIRECT, NodeRecord

ALL, WHERE_POSSIBLE = "direct", "auto-direct"
"""Values of the setting `encap`."""
LINGER = 60.0
"""Seconds for which a node still takes what it asked the others not to send any more: longer than
the store takes to tell them."""
NO_MAC = "00:00:00:00:00:00"


def is_wanted(settings: Settings) -> bool:
    """Whether this node is to send so, and to take it."""
    return settings.encap in (ALL, WHERE_POSSIBLE)


def overhead(settings: Settings, version: int) -> int:
    """Bytes that the MTU of pods leaves for outer headers; `version` is that of the VTEPs.

    With ALL, none: the paths to nodes that get VXLAN all the same count as narrow ones
    (path_mtus.py). With WHERE_POSSIBLE there may be many of those, and no packet shall meet two
    limits on its ways.
    """
    return 0 if settings.encap == ALL else VXLAN_OVERHEAD[version]


def lingers_until(settings: Settings, before: Node | None, now: float) -> float:
    """Until when a node takes what it does not send any more, by what it was `before`; 0: it does
    not, or it does both. Times are Unix times in seconds."""
    if before is None or is_wanted(settings):
        return 0.0
    if before.direct:
        return now + LINGER
    return before.direct_until if before.direct_until > now else 0.0


def accepts(node: Node) -> tuple[str, ...]:
    """What the record of a node in the store says that it takes besides VXLAN."""
    return (DIRECT,) if node.direct else ()


def takers(nodes: Iterable[NodeRecord]) -> set[IPAddress]:
    """The VTEPs of nodes that take such packets."""
    return {node.vtep for node in nodes if DIRECT in node.accepts}


def is_on_link(vtep: IPAddress, path: Way, link: Link) -> bool:
    """Whether the next hop to a node is the node itself, and a MAC leads to it."""
    return path.neighbour == vtep and link.is_ethernet


def chosen(
    takers: Collection[IPAddress], paths: Mapping[IPAddress, Way], links: Mapping[int, Link]
) -> set[IPAddress]:
    """Which of the nodes that take such packets get them."""
    return {
        vtep
        for vtep in takers
        if (path := paths.get(vtep)) is not None
        and (link := links.get(path.ifindex)) is not None
        and is_on_link(vtep, path, link)
    }
