# SPDX-License-Identifier: Apache-2.0
"""Part "node": the node's record."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.errors import NotAvailable
from pycni.faults import SETUP, Fault, Weight
from pycni.kernel.rtnl import Rtnl
from pycni.node import claim, overlay
from pycni.node.record import Node, record_path
from pycni.settings import Settings
from pycni.upkeep import directories
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "node"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Only who remembers the record, as the agent does, finds one."""
    if Node.load_if_any(d.settings) != d.node:
        yield Fault(PART, f"the record {record_path(d.settings)}", "gone or changed",
                    weight=Weight.DEGRADED)  # fmt: skip


def mend(d: Description, _: Seen) -> None:
    """Write it again. Raises FileError."""
    d.node.save(d.settings)


def absent(settings: Settings) -> Iterator[Fault]:
    """Why these settings have no record that can be read: what explains that comes first."""
    yield from directories.unusable(settings)
    with Rtnl() as ipr:
        others = claim.faults(settings, overlay.find(ipr))
    yield from others or [_unread(settings)]


def _unread(settings: Settings) -> Fault:
    try:
        Node.load(settings)
    except NotAvailable as error:
        return Fault(PART, error.message, "", error.hint or SETUP)
    return Fault(PART, "the record", "being written", SETUP)
