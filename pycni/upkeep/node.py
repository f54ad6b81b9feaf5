# SPDX-License-Identifier: Apache-2.0
"""Part "node": the node's record."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.errors import NotAvailable
from pycni.faults import Fault, Weight
from pycni.node.record import Node, record_path
from pycni.settings import Settings
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "node"
SETUP = "run: pycni setup"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Only who remembers the record, as the agent does, finds one."""
    if Node.load_if_any(d.settings) != d.node:
        yield Fault(PART, f"the record {record_path(d.settings)}", "gone or changed",
                    weight=Weight.DEGRADED)  # fmt: skip


def mend(d: Description, _: Seen) -> None:
    """Write it again. Raises FileError."""
    d.node.save(d.settings)


def absent(settings: Settings) -> Fault:
    """The fault of a host without a record that can be read."""
    try:
        Node.load(settings)
    except NotAvailable as error:
        return Fault(PART, error.message, "", error.hint or SETUP)
    return Fault(PART, "the record", "being written", SETUP)
