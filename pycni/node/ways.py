# SPDX-License-Identifier: Apache-2.0
"""The ways to other nodes besides VXLAN, as one: each is a module (direct.py, ipip.py), and a node
has at most one of them by its settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pycni.node import direct, ipip
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import DIRECT, IPIP


def overhead(settings: Settings, version: int) -> int:
    """Bytes that the MTU of pods leaves for outer headers; `version` is that of the VTEPs."""
    if ipip.is_wanted(settings):
        return ipip.overhead(version)
    return direct.overhead(settings, version)


def accepts(node: Node) -> tuple[str, ...]:
    """What the record of a node in the store says that it takes besides VXLAN."""
    return (*direct.accepts(node), *ipip.accepts(node))


def still_accepts(settings: Settings, accepted: Iterable[str]) -> tuple[str, ...]:
    """What a node takes before and after a setup by these settings, of what it `accepted`."""
    stays = {DIRECT: direct.is_wanted(settings), IPIP: ipip.is_wanted(settings)}
    return tuple(word for word in accepted if stays.get(word, False))
