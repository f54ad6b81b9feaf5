# SPDX-License-Identifier: Apache-2.0
"""What `pycni status` says of a node of a lab."""

from __future__ import annotations

from pycni.lab.layout import LabNode
from pycni.settings import load
from pycni.upkeep import report
from pycni.upkeep.report import Row, State
from support.labs import within


def faults(node: LabNode) -> list[Row]:
    """The rows that are not well."""
    settings = load(node.settings_path)
    found = within(node.netns, lambda: report.rows(settings))
    return [row for row in found if row.state in (State.DEGRADED, State.BROKEN)]


def is_well(node: LabNode) -> bool:
    """Whether there is nothing to say."""
    return faults(node) == []
