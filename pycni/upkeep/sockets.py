# SPDX-License-Identifier: Apache-2.0
"""Part "sockets": the programs by which processes of the node reach Services, at their hooks.

What is missing takes a whole setup: the programs are kept by nothing but those hooks.
"""

from __future__ import annotations

from collections.abc import Iterator

from loader import pins, sockets
from pycni.faults import Fault
from pycni.kernel import cgroups
from pycni.node import host_clients
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "sockets"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Hooks without the program of the current load."""
    root = d.settings.pin_root
    directory = pins.current(root)
    if directory is None or not host_clients.are_served(d.settings):  # programs.py says so
        return
    seen = cgroups.root()
    group = None if seen is None else seen.path
    for name, found in sockets.lost(root, pins.fingerprint(directory), group).items():
        yield Fault(PART, f"{name} for the node's own processes", found)
