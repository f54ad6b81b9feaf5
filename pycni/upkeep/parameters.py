# SPDX-License-Identifier: Apache-2.0
"""Part "sysctls": kernel parameters that let packets pass between overlay and uplink."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault
from pycni.kernel import sysctl
from pycni.node import overlay
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "sysctls"


def faults(d: Description, _: Seen) -> Iterator[Fault]:
    """Of each parameter that exists: those of an interface go and come with it."""
    for name, value in wanted(d).items():
        found = sysctl.read(name)
        if found not in (None, value):
            yield Fault(PART, name.replace("/", "."), f"{found}, not {value}")


def mend(d: Description, _: Seen) -> None:
    """Write those that differ. Raises OSError."""
    overlay.write_parameters(wanted(d))


def wanted(d: Description) -> dict[str, str]:
    """Value by name. Reads those whose right value depends on what they are."""
    return overlay.plan_forwarding(d.node.uplink, ipv6=d.has_ipv6)
