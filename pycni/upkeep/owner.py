# SPDX-License-Identifier: Apache-2.0
"""The part `owner`: the overlay device says which settings the node belongs to (node/claim.py)."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault
from pycni.node import claim, overlay
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = claim.PART


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Another file's alias, or none."""
    yield from claim.faults(d.settings, seen.link(overlay.DEVICE))


def mend(d: Description, seen: Seen) -> None:
    """Write the alias that is missing. Raises SetupError if it is another file's."""
    claim.refuse_others(d.settings, seen.ipr)
    device = seen.link(overlay.DEVICE)
    if device is not None:
        claim.setup(d.settings, seen.ipr, device.ifindex)
