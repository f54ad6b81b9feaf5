# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the Services that this node forwards, by its agent's report. Looks only."""

from __future__ import annotations

from pycni.faults import Fault, Weight
from pycni.kernel import cgroups
from pycni.node import host_clients, report
from pycni.settings import Settings

PART = "services"
NAMED = 3
"""Service ports or objects that are named."""
SEE = "correct the objects: pycni services"


def faults(settings: Settings) -> list[Fault]:
    """Service ports for which there is no room, and objects that cannot be used. Empty if there
    are none, or no agent reports."""
    found = report.table(report.read(settings), report.SERVICES)
    rows = []
    if count := found.get("left_out_count", 0):
        one, why = next(iter(report.table(found, "left_out").items()), ("", ""))
        rows.append(
            Fault(PART, "the table of Services", f"full: {count} service ports are not forwarded, "
                  f"such as {one}: {why}", "use fewer Services, or services = \"off\"")
        )  # fmt: skip
    if count := found.get("set_aside_count", 0):
        named = "; ".join(map(str, found.get("set_aside", [])[:NAMED]))
        rows.append(
            Fault(PART, "what Services say", f"not all used: {count} set aside, such as {named}",
                  SEE, Weight.DEGRADED)
        )  # fmt: skip
    return rows


def summary(settings: Settings) -> str:
    """What is forwarded, in a few words."""
    if settings.services == "off":
        return "off"
    found = report.table(report.read(settings), report.SERVICES)
    if "frontends" not in found:
        return f"{settings.services}: not listed yet, or no agent reports"
    words = [f"{settings.services}: {found['frontends']} addresses and ports forwarded"]
    if why := found.get("kept_sockets"):
        words.append(f"UDP sockets of the node's processes outlive their endpoints: {why}")
    root = cgroups.root() if host_clients.are_served(settings) else None
    if root is not None and not root.is_whole:
        words.append(f"of the node's processes, those in the control group at {root.path}")
    return "; ".join(words)
