# SPDX-License-Identifier: Apache-2.0
"""Packets between nodes without outer headers: which nodes get them, and what that changes.

Receive first, send later: a node's record in the store says that it takes such packets, and only
then others send them. A node sends them if its settings say so, to nodes that take them and are on
one link with it, as the kernel's routes say; to those behind a router only if the settings of both
say that routers know where pods are. All others get VXLAN. A node that shall do neither any
more goes on taking them for a while. Pure: no netlink, no maps, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from pycni.cluster import VXLAN_OVERHEAD, IPAddress
from pycni.kernel.fib import Path as Way
from pycni.kernel.links import Link
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import DIRECT, ROUTED, NodeRecord

ALL, WHERE_POSSIBLE = "direct", "auto-direct"
"""Values of the setting `encap`."""
LINGER = 60.0
"""Seconds for which a node still takes what it asked the others not to send any more: longer than
the store takes to tell them."""
NO_MAC = "00:00:00:00:00:00"


class Scope(Enum):
    """How far packets without outer headers may go to another node."""

    NOWHERE = 0
    LINK = 1
    ROUTERS = 2
    """And behind them."""


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
    return _lingers_until(now, sent=before.direct, until=before.direct_until)


def routed_until(settings: Settings, before: Node | None, now: float) -> float:
    """As `lingers_until`, for what comes from routers."""
    if before is None or is_routed(settings):
        return 0.0
    return _lingers_until(now, sent=before.routed, until=before.routed_until)


def _lingers_until(now: float, *, sent: bool, until: float) -> float:
    if sent:
        return now + LINGER
    return until if until > now else 0.0


def accepts(node: Node) -> tuple[str, ...]:
    """What the record of a node in the store says that it takes besides VXLAN."""
    if not node.direct:
        return ()
    return (DIRECT, ROUTED) if node.routed else (DIRECT,)


def still_accepts(settings: Settings, accepted: Iterable[str]) -> tuple[str, ...]:
    """What a node that is about to change accepts before and after it, by what it `accepted`."""
    wanted = {DIRECT: is_wanted(settings), ROUTED: is_routed(settings)}
    return tuple(word for word in accepted if wanted.get(word, False))


def scope(node: Node, *, takes: bool, from_routers: bool) -> Scope:
    """How far this node's packets may go to another one, which `takes` them, or does not, and does
    so `from_routers`."""
    if not (node.direct and takes):
        return Scope.NOWHERE
    return Scope.ROUTERS if node.routed and from_routers else Scope.LINK


def scopes(node: Node, others: Iterable[NodeRecord]) -> dict[IPAddress, Scope]:
    """That of each other node, by its record."""
    return {
        other.vtep: scope(node, takes=DIRECT in other.accepts, from_routers=ROUTED in other.accepts)
        for other in others
    }


def is_on_link(vtep: IPAddress, path: Way, link: Link) -> bool:
    """Whether the next hop to a node is the node itself, and a MAC leads to it."""
    return path.neighbour == vtep and link.is_ethernet


def chosen(
    scopes: Mapping[IPAddress, Scope], paths: Mapping[IPAddress, Way], links: Mapping[int, Link]
) -> set[IPAddress]:
    """The nodes that get packets without outer headers."""
    return {
        vtep
        for vtep, scope in scopes.items()
        if scope is not Scope.NOWHERE
        and (path := paths.get(vtep)) is not None
        and (link := links.get(path.ifindex)) is not None
        and (link.is_ethernet if scope is Scope.ROUTERS else is_on_link(vtep, path, link))
    }
