# SPDX-License-Identifier: Apache-2.0
"""Packets between nodes in IPIP: which nodes get them, and what that changes.

As in direct.py: receive first, send later. A node sends IPIP if its settings say so, to nodes whose
records say that they take it, by interfaces where a MAC leads on. Routers do not matter, since they
see only addresses of nodes. All others get VXLAN. Pure: no netlink, no maps, no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pycni.cluster import IPIP_OVERHEAD, IPAddress
from pycni.kernel.fib import Path as Way
from pycni.kernel.links import Link
from pycni.node.direct import LINGER
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import IPIP, NodeRecord

ENCAP = "ipip"
"""The value of the setting `encap`."""


def is_wanted(settings: Settings) -> bool:
    """Whether this node is to send so, and to take it."""
    return settings.encap == ENCAP


def overhead(version: int) -> int:
    """Bytes that the MTU of pods leaves for the outer header; `version` is that of the VTEPs. The
    paths to nodes that get VXLAN all the same count as narrow ones (path_mtus.py)."""
    return IPIP_OVERHEAD[version]


def lingers_until(settings: Settings, before: Node | None, now: float) -> float:
    """Until when a node takes what it does not send any more, by what it was `before`; 0: it does
    not, or it does both. Times are Unix times in seconds."""
    if before is None or is_wanted(settings):
        return 0.0
    if before.ipip:
        return now + LINGER
    return before.ipip_until if before.ipip_until > now else 0.0


def accepts(node: Node) -> tuple[str, ...]:
    """What the record of a node in the store says of it."""
    return (IPIP,) if node.ipip else ()


def takers(nodes: Iterable[NodeRecord]) -> set[IPAddress]:
    """The VTEPs of nodes that take it."""
    return {node.vtep for node in nodes if IPIP in node.accepts}


def chosen(
    takers: Collection[IPAddress], paths: Mapping[IPAddress, Way], links: Mapping[int, Link]
) -> set[IPAddress]:
    """Which of the nodes that take IPIP get it: no program of ours takes it from an interface
    without an Ethernet header."""
    return {
        vtep
        for vtep in takers
        if (path := paths.get(vtep)) is not None
        and (link := links.get(path.ifindex)) is not None
        and link.is_ethernet
    }
