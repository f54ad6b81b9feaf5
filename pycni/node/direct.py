# SPDX-License-Identifier: Apache-2.0
"""Packets between nodes without outer headers: who sends and takes them, and what that changes.

Receive first, send later: a node's record in the store says that it takes such packets, and only
then others send them. A node sends them if its settings say so, to nodes that take them and are on
one link with it, as the kernel's routes say; to those behind a router only if the settings of both
say that routers know where pods are. All others get VXLAN. A node that shall do neither any
more goes on taking them for a while (modes.py). Pure: no netlink, no maps, no clock.
"""

from __future__ import annotations

from pycni.cluster import VXLAN_OVERHEAD, IPAddress
from pycni.kernel.fib import Path as Way
from pycni.kernel.links import Link
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import DIRECT, ROUTED

ALL, WHERE_POSSIBLE = "direct", "auto-direct"
"""Values of the setting `encap`."""
LINGER = 60.0
"""Seconds for which a node still takes what it asked the others not to send any more: longer than
the store takes to tell them."""
NO_MAC = "00:00:00:00:00:00"


def is_wanted(settings: Settings) -> bool:
    """Whether this node is to send so, and to take it."""
    return settings.encap in (ALL, WHERE_POSSIBLE)


def is_routed(settings: Settings) -> bool:
    """Whether it is to do so by routers, too."""
    return is_wanted(settings) and settings.routers_know_pods


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
    return linger(now, sent=before.direct, until=before.direct_until)


def routed_until(settings: Settings, before: Node | None, now: float) -> float:
    """As `lingers_until`, for what comes from routers."""
    if before is None or is_routed(settings):
        return 0.0
    return linger(now, sent=before.routed, until=before.routed_until)


def linger(now: float, *, sent: bool, until: float) -> float:
    """As `lingers_until`: a node `sent` something that it shall send no more, or took it `until`
    some time already."""
    if sent:
        return now + LINGER
    return until if until > now else 0.0


def accepts(node: Node) -> tuple[str, ...]:
    """What the record of a node in the store says that it takes besides VXLAN."""
    if not node.direct:
        return ()
    return (DIRECT, ROUTED) if node.routed else (DIRECT,)


def is_on_link(vtep: IPAddress, path: Way, link: Link) -> bool:
    """Whether the next hop to a node is the node itself, and a MAC leads to it."""
    return path.neighbour == vtep and link.is_ethernet
