# SPDX-License-Identifier: Apache-2.0
"""Part "sysctls": kernel parameters that let packets pass between overlay and uplink."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pycni.faults import Fault
from pycni.kernel import sysctl
from pycni.kernel.links import Link
from pycni.node import overlay
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "sysctls"


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Of each parameter that exists: those of an interface go and come with it."""
    for name, value in wanted(d, seen.around.outer).items():
        found = sysctl.read(name)
        if found not in (None, value):
            yield Fault(PART, name.replace("/", "."), f"{found}, not {value}")


def mend(d: Description, seen: Seen) -> None:
    """Write those that differ. Raises OSError, FileError.

    Of interfaces that came after the last setup, the node's record gets the values from before, so
    that a teardown writes them back.
    """
    later = [link for link in seen.around.outer if link.ifname != d.node.uplink]
    before = overlay.parameters_before(wanted(d, later))
    new = {name: value for name, value in before.items() if name not in d.node.sysctls}
    if new:
        replace(d.node, sysctls=d.node.sysctls | new).save(d.settings)
    overlay.write_parameters(wanted(d, seen.around.outer))


def wanted(d: Description, outer: Iterable[Link]) -> dict[str, str]:
    """Value by name. Reads those whose right value depends on what they are.

    `outer` are the interfaces by which packets of other machines come in (node/underlay.py).
    """
    return overlay.plan_forwarding([link.ifname for link in outer], ipv6=d.has_ipv6)
