# SPDX-License-Identifier: Apache-2.0
"""Faults: what differs on a node from what the node must be.

Every module that makes something on a node looks for faults in it, too. So what `setup` makes, the
agent mends and `status` reports cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

SETUP = "run: pycni setup"
"""What there is to do, or its end, where a person has to run a whole setup."""


class Weight(Enum):
    """What a fault means for packets."""

    DEGRADED = "degraded"
    """Packets flow, but something that was promised does not hold."""
    BROKEN = "broken"
    """Packets of pods are lost."""


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it must be."""

    part: str
    """The part of the node: the name of a row of `pycni status`."""
    thing: str
    """Which thing of that part, by the name a person knows: an interface, a route, a pod."""
    found: str
    """What is there instead, in a few words: "gone", "down", "mtu 1400, not 1450"."""
    todo: str = ""
    """What a person has to do, if the agent cannot mend it."""
    weight: Weight = Weight.BROKEN

    @property
    def sentence(self) -> str:
        """Thing and finding, for a log line or a table."""
        return f"{self.thing} is {self.found}" if self.found else self.thing
