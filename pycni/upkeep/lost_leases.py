# SPDX-License-Identifier: Apache-2.0
"""Part "leases": the host end of each pod's link has its lease, which is the link's alias.

Without it nothing else of the pod is looked at. Only an agent that has seen the alias before can
write it again: nobody else knows it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.kernel.links import Link
from pycni.pods.lease import held_by, is_ours
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "leases"
ANEW = "delete the pod, so that it is made anew"


def faults(_: Description, seen: Seen) -> Iterator[Fault]:
    """Of links that are up: an ADD sets a link up and writes the alias in one request."""
    for link in _without(seen):
        todo = f"if the agent does not mend it at once: {ANEW}"
        if seen.aliases is not None:
            todo = "" if link.ifname in seen.aliases else ANEW
        found = "without its lease: somebody changed its alias"
        yield Fault(PART, link.ifname, found, todo, Weight.DEGRADED)


def mend(_: Description, seen: Seen) -> None:
    """Write the aliases that are remembered."""
    for link in _without(seen):
        if alias := (seen.aliases or {}).get(link.ifname):
            seen.ipr.set_alias(link.ifindex, alias)


def _without(seen: Seen) -> list[Link]:
    return [
        link for link in seen.pods_links if link.is_up and is_ours(link) and held_by(link) is None
    ]
