"""Where programs belong on a node: the overlay device, the uplink, and the host end of each pod."""

from __future__ import annotations

from loader import ENDPOINT_PROGRAMS, Hook
from pycni.kernel.rtnl import Rtnl
from pycni.pods.lease import leases


def wanted(ipr: Rtnl, overlay_ifindex: int, uplink_ifindex: int) -> list[Hook]:
    """The hooks for the pods there are now. An ifindex of 0: there is no such interface."""
    found = [Hook(lease.ifindex, program) for lease in leases(ipr) for program in ENDPOINT_PROGRAMS]
    if overlay_ifindex:
        found += [Hook(overlay_ifindex, "from_overlay"), Hook(overlay_ifindex, "to_overlay")]
    if uplink_ifindex:
        found.append(Hook(uplink_ifindex, "from_underlay"))
    return found
