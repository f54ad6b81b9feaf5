# SPDX-License-Identifier: Apache-2.0
"""Ways of packets, as other plugins name them, and what each is in pycni: between nodes, or on the
LAN, where pods have addresses of the uplink's own network.

A test compares the tables with what the settings and the network list take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pycni.setup.translation.finding import Conf, Finding, Key

VXLAN = "vxlan"

OVERLAY = {"encap": "auto"}
WORKS = 'encap = "auto" (VXLAN) works'

MODES: Mapping[str, Mapping[str, Any]] = {
    VXLAN: OVERLAY,
    "host-gw": {"encap": "direct"},
    "direct-routing": {"encap": "auto-direct"},
    "ipip": {"encap": "ipip"},
}
"""Settings by the name in configurations; `direct-routing` is flannel's `DirectRouting`."""

ON_LAN: Mapping[str, Mapping[str, Any]] = {
    "ipvlan": {"device": "ipvlan", "ipMasq": False},
    "macvlan": {"device": "macvlan", "ipMasq": False},
}
"""Keys of the network list by the name in configurations. Nobody hides pods that are on the LAN."""


def on_lan(conf: Conf | None) -> str:
    """The way in the `mode` beside a key, if it is one on the LAN; else ""."""
    name = "" if conf is None else conf.get("mode")
    return name.lower() if isinstance(name, str) and name.lower() in ON_LAN else ""


def judge(key: Key, name: str, *, how: str, lead: str = "") -> Finding:
    """What becomes of a key that asks for a way between nodes. `how` says what to change to get
    VXLAN; `lead` goes before what is said."""
    settings = MODES.get(name.lower())
    if settings is None:
        return key.refused(f"{lead}pycni knows no {name!r} between nodes; {WORKS}: {how}")
    return key.becomes(lead.rstrip(": "), settings=settings)
