# SPDX-License-Identifier: Apache-2.0
"""Part "ipip": packets between nodes in IPIP, where the settings want them no more."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "ipip"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """What is taken too long."""
    if is_over(d):
        found = "taken still, though no node has reason to send any"
        yield Fault(PART, "packets in IPIP", found, weight=Weight.DEGRADED)


def is_over(d: Description) -> bool:
    """Whether the time is over for which the node still takes them."""
    return 0 < d.node.ipip_until <= time.time()


def state(d: Description, _: Seen) -> object:
    """The same: nothing else is looked at."""
    return is_over(d)
