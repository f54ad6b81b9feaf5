# SPDX-License-Identifier: Apache-2.0
"""Part "doors": what a node still takes of others, though it asked them to send it no more."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "doors"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """What is taken too long; a setup ends it."""
    doors = {
        "packets without VXLAN": d.node.direct_until,
        "packets without VXLAN from routers": d.node.routed_until,
        "packets in IPIP": d.node.ipip_until,
    }
    now = time.time()
    for what, until in doors.items():
        if 0 < until <= now:
            found = "taken still, though no node has reason to send any"
            yield Fault(PART, what, found, weight=Weight.DEGRADED)


def state(d: Description, _: Seen) -> object:
    """Whether the time of one is over."""
    return 0 < d.node.door_open_until <= time.time()
