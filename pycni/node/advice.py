# SPDX-License-Identifier: Apache-2.0
"""Which way of sending to other nodes fits the network that was found. Pure.

It is advice, and no fault: VXLAN passes everywhere. Whether a network lets packets with addresses
of pods pass can only be tried (docs/direct.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pycni.cluster import IPAddress
from pycni.kernel.fib import Path as Way
from pycni.kernel.links import Link
from pycni.node import direct
from pycni.settings import Settings

BY_ITSELF = "auto"
"""The value of the setting `encap` by which nobody has chosen a way yet."""


def on_link(
    vteps: Collection[IPAddress], ways: Mapping[IPAddress, Way], links: Mapping[int, Link]
) -> int:
    """How many of these nodes the kernel reaches without a router."""
    known = ((vtep, way, links.get(way.ifindex)) for vtep in vteps if (way := ways.get(vtep)))
    return sum(link is not None and direct.is_on_link(vtep, way, link) for vtep, way, link in known)


def about(settings: Settings, *, near: int, others: int) -> str:
    """What to try, in some words; `near` of `others` are on one link with this node. Empty if a way
    was chosen, or if none would be better."""
    if settings.encap != BY_ITSELF or not near:
        return ""
    if near == others:
        found = "the other node is" if others == 1 else f"all {others} other nodes are"
        chosen = direct.ALL
    else:
        found = f"{near} of {others} other nodes are"
        chosen = direct.WHERE_POSSIBLE
    return f'{found} on one link with this one: encap = "{chosen}" sends there without VXLAN'
