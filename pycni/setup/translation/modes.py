# SPDX-License-Identifier: Apache-2.0
"""Ways of packets between nodes, as other plugins name them, and what each is in pycni.

A way that pycni gets is switched on by its `exists`; a test compares the table with what the
settings and the network list take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pycni.setup.translation.finding import Finding, Key

VXLAN = "vxlan"


@dataclass(frozen=True)
class Mode:
    """What a way is in pycni, or will be."""

    what: str
    """Its name in words."""
    exists: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    instead: str = ""
    """What to know about VXLAN in its place; no full stop."""


OVERLAY = {"encap": "auto"}
WORKS = 'encap = "auto" (VXLAN) works'
LAN = "pods then have a network of their own, which must not be the LAN's"

MODES = {
    VXLAN: Mode("VXLAN", exists=True, settings=OVERLAY),
    "host-gw": Mode(
        "routes to the other nodes",
        exists=True,
        settings={"encap": "direct"},
    ),
    "direct-routing": Mode(
        "routes to nodes of the same subnet",
        exists=True,
        settings={"encap": "auto-direct"},
    ),
    "ipip": Mode(
        "IPIP",
        exists=True,
        settings={"encap": "ipip"},
    ),
    "ipvlan": Mode("ipvlan", exists=False, network={"device": "ipvlan"}, instead=LAN),
    "macvlan": Mode("macvlan", exists=False, network={"device": "macvlan"}, instead=LAN),
}
"""By the name in configurations; `direct-routing` is flannel's `DirectRouting`."""

ON_LAN = ("ipvlan", "macvlan")
"""Those in which pods have addresses of the uplink's own network."""


def judge(key: Key, name: str, *, how: str, lead: str = "") -> Finding:
    """What becomes of a key that asks for a way. `how` says what to change to get VXLAN; `lead`
    goes before what is said."""
    mode = MODES.get(name.lower())
    if mode is None:
        return key.refused(f"{lead}pycni knows no {name!r} between nodes; {WORKS}: {how}")
    if mode.exists:
        return key.becomes(lead.rstrip(": "), settings=mode.settings, network=mode.network)
    return key.refused(f"{lead}pycni has no {mode.what} yet; {WORKS}: {mode.instead}; {how}")
