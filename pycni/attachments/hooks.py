# SPDX-License-Identifier: Apache-2.0
"""Where programs belong on a node: the overlay device, the interfaces by which packets of other
machines come in, and the host end of each pod."""

from __future__ import annotations

from collections.abc import Iterable

from loader import Hook
from loader.places import PLACES, Device
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.pods.lease import leases

OUTSIDE = next(place.program for place in PLACES if place.device is Device.UPLINK)
"""The program of interfaces by which packets of other machines come in."""


def wanted(ipr: Rtnl, overlay_ifindex: int, outer: Iterable[Link]) -> list[Hook]:
    """The hooks for the pods there are now. An ifindex of 0: there is no such interface.

    `outer` are as in `wanted_outside`.
    """
    devices = {
        Device.ENDPOINT: [lease.ifindex for lease in leases(ipr)],
        Device.OVERLAY: [overlay_ifindex],
        Device.UPLINK: [],
    }
    return wanted_outside(outer) + [
        Hook(ifindex, place.program)
        for place in PLACES
        for ifindex in devices[place.device]
        if ifindex
    ]


def wanted_outside(outer: Iterable[Link]) -> list[Hook]:
    """The hooks of the interfaces `outer` (node/underlay.py).

    Those without an Ethernet header, as a WireGuard tunnel's, get no program: the kernel takes
    VXLAN from there, and `from_overlay` checks it.
    """
    return [Hook(link.ifindex, OUTSIDE) for link in outer if link.is_ethernet]
