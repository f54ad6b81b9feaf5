# SPDX-License-Identifier: Apache-2.0
"""Part "rules": the routing rules that answer packets to addresses of nobody."""

from __future__ import annotations

from collections.abc import Iterable

from pycni.faults import Fault
from pycni.kernel.rules import DeadEnd
from pycni.node import dead_ends
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen


def faults(d: Description, seen: Seen) -> Iterable[Fault]:
    """What is missing, and what is there though the settings do not ask for it."""
    return dead_ends.faults(seen.ipr, wanted(d))


def mend(d: Description, seen: Seen) -> None:
    """Make the rules be just those. Raises SetupError."""
    dead_ends.setup(seen.ipr, wanted(d))


def wanted(d: Description) -> list[DeadEnd]:
    """The rules of this node."""
    return dead_ends.wanted(d.node.cluster_cidrs, answer=d.settings.answer_unreachable)
