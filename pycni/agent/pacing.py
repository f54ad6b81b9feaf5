# SPDX-License-Identifier: Apache-2.0
"""How long an agent waits before it first reads a Kubernetes store: all agents of a large cluster
may start at the same moment, when a DaemonSet changes, and all read the whole list.

A node without a list of before is new, and reads at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pycni.node.last_list import list_path
from pycni.settings import Settings

LONGEST = 10.0
"""Seconds."""
NODES_A_SECOND = 100
"""A cluster of three nodes does not wait."""


def seconds(settings: Settings, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """The wait, by chance. `uniform(low, high)` gives a random number between the two."""
    if not settings.store_url.startswith("kube:"):
        return 0.0
    try:
        with list_path(settings).open("rb") as file:
            nodes = sum(1 for _ in file)
    except OSError:
        return 0.0
    return uniform(0.0, min(LONGEST, nodes / NODES_A_SECOND))
