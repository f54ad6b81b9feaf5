# SPDX-License-Identifier: Apache-2.0
"""Packets between nodes in IPIP: who sends and takes them, and what that changes.

As in direct.py: receive first, send later. A node sends IPIP if its settings say so, to nodes whose
records say that they take it, by interfaces where a MAC leads on. Routers do not matter, since they
see only addresses of nodes. All others get VXLAN (modes.py). Pure: no netlink, no maps, no clock.
"""

from __future__ import annotations

from pycni.cluster import IPIP_OVERHEAD
from pycni.node import direct
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import IPIP

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
    return direct.linger(now, sent=before.ipip, until=before.ipip_until)


def accepts(node: Node) -> tuple[str, ...]:
    """What the record of a node in the store says of it."""
    return (IPIP,) if node.ipip else ()
