# SPDX-License-Identifier: Apache-2.0
"""Whether the networks of this node's pods are still its own in the cluster, as its agent says.

While they are not, other nodes do not send to them, or may give the same addresses: no pod is
added. Pods that are there stay.
"""

from __future__ import annotations

from pycni.errors import NotAvailable
from pycni.node import report
from pycni.settings import Settings

PART = "place"


def refuse_lost(settings: Settings) -> None:
    """Raise NotAvailable if the agent has found that this node lost its place."""
    told = report.read_table(settings, report.PLACE)
    if told:
        raise NotAvailable(
            f"this node has lost its place in the cluster: {told.get('cause', '')}",
            hint=str(told.get("to_do", "")),
        )
