# SPDX-License-Identifier: Apache-2.0
"""The programs, and where each of them goes: the one list of both.

A program is the only one of the object file of its name. The counters know it by the same name: a
unit test compares this list with `enum attach_point` of bpf/lib/types.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

INGRESS = 0xFFFFFFF2  # TC_H_CLSACT with TC_H_MIN_INGRESS, include/uapi/linux/pkt_sched.h
EGRESS = 0xFFFFFFF3


class Device(Enum):
    """What kind of interface a program is attached to."""

    ENDPOINT = auto()
    """The host end of each pod's pair."""
    UPLINK = auto()
    """The interfaces by which packets of other machines come in."""
    OVERLAY = auto()


@dataclass(frozen=True)
class Place:
    """Where a program goes. `in_pod`: on a netkit pair, it goes into the pod's end instead."""

    program: str
    device: Device
    direction: int
    in_pod: bool = False


PLACES = (
    Place("from_container", Device.ENDPOINT, INGRESS, in_pod=True),
    Place("to_container", Device.ENDPOINT, EGRESS),
    Place("from_underlay", Device.UPLINK, INGRESS),
    Place("from_overlay", Device.OVERLAY, INGRESS),
    Place("to_overlay", Device.OVERLAY, EGRESS),
)

PROGRAMS = tuple(place.program for place in PLACES)
DIRECTION = {place.program: place.direction for place in PLACES}
ENDPOINT_PROGRAMS = tuple(one.program for one in PLACES if one.device is Device.ENDPOINT)

SOCKETS = "sockets"
"""The object with the programs for sockets of the host (sockets.py), and their map."""
OBJECTS = (*PROGRAMS, SOCKETS)
"""Every file that is compiled."""
