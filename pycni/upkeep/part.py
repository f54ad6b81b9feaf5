# SPDX-License-Identifier: Apache-2.0
"""A part of a node: how its faults are found, and who mends them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pycni.faults import Fault
from pycni.kernel.node_events import Subject
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

Look = Callable[[Description, Seen], Iterable[Fault]]
"""Finds faults and changes nothing. Raises PycniError, LoaderError or OSError."""
Mend = Callable[[Description, Seen], object]
"""Mends what `Look` finds, and no more than that. Raises as `Look`."""
State = Callable[[Description, Seen], object]
"""What a part compares, in short: read from the kernel, cheap, and equal to a former one only if
all that `Look` sees is as it was. Raises as `Look`."""


@dataclass(frozen=True)
class Part:
    """One part of a node, by the name that `pycni status` has for it."""

    name: str
    faults: Look
    mend: Mend | None = None
    """None: it takes a whole setup, which is right for every part of a node, but slower."""
    wakes: frozenset[Subject] = frozenset()
    """Events that may mean a fault."""
    is_cheap: bool = False
    """Whether the plugin's STATUS looks at it, every few seconds, and for a few pods."""
    state: State | None = None
    """Of a part that takes long in a large cluster (settled.py)."""
    serves_adds: bool = False
    """Whether a fault stops ADDs even if it does not stop packets."""
    setup_helps: bool = True
    """Whether a whole setup makes what `mend` could not."""
    is_others: bool = False
    """Whether it is about what belongs to others: never mended, and told in the agent's log."""
