# SPDX-License-Identifier: Apache-2.0
"""Where programs belong on a node: the overlay device, the uplink, and the host end of each pod."""

from __future__ import annotations

from loader import Hook
from loader.places import PLACES, Device
from pycni.kernel.rtnl import Rtnl
from pycni.pods.lease import leases


def wanted(ipr: Rtnl, overlay_ifindex: int, uplink_ifindex: int) -> list[Hook]:
    """The hooks for the pods there are now. An ifindex of 0: there is no such interface."""
    devices = {
        Device.ENDPOINT: [lease.ifindex for lease in leases(ipr)],
        Device.OVERLAY: [overlay_ifindex],
        Device.UPLINK: [uplink_ifindex],
    }
    return [
        Hook(ifindex, place.program)
        for place in PLACES
        for ifindex in devices[place.device]
        if ifindex
    ]
