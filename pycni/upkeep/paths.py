# SPDX-License-Identifier: Apache-2.0
"""Part "paths": senders are told of paths to other nodes that carry less than the overlay.

No event wakes this part: agent/kernel_routes.py hears all of them, and writes the same.
"""

from __future__ import annotations

from pycni.errors import NotAvailable
from pycni.faults import Fault
from pycni.node import path_mtus
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = path_mtus.PART


def faults(d: Description, _: Seen) -> list[Fault]:
    """Compares with the kernel's paths."""
    try:
        return path_mtus.faults(d.settings)
    except NotAvailable:  # programs.py says so
        return []


def state(d: Description, seen: Seen) -> object:
    """Map and routes, and the nodes that they are about. What changes the kernel's paths,
    agent/kernel_routes.py hears, and writes both. Raises NotAvailable or OSError."""
    root = d.settings.pin_root
    return (path_mtus.look(d.settings), seen.digest(root, "vteps"), seen.digest(root, "remotes"))


def mend(d: Description, _: Seen) -> None:
    """Write what the kernel's paths say. Raises NotAvailable or OSError."""
    path_mtus.mend(d.settings)
