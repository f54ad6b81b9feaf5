# SPDX-License-Identifier: Apache-2.0
"""Part "pods": the host end of each pod's link, up, with its MAC, closed to the host's stack."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.kernel import sysctl
from pycni.kernel.links import Link
from pycni.names import GATEWAY_MAC
from pycni.pods import host_end
from pycni.pods.lease import Lease
from pycni.upkeep.description import Description
from pycni.upkeep.hooks import title
from pycni.upkeep.seen import Seen

PART = "pods"


def faults(_: Description, seen: Seen) -> Iterator[Fault]:
    """Those with somebody else's ingress qdisc must be open to the stack (link_changes.py)."""
    for link, lease in seen.pods:
        if not link.is_up:
            yield Fault(PART, title(lease), "down")
        if link.mac != GATEWAY_MAC:
            yield Fault(PART, title(lease), f"one with the MAC {link.mac}, not {GATEWAY_MAC}")
        if _is_open(seen, link, lease):
            found = "open to the host's stack, so a packet that no program checks is forwarded"
            yield Fault(PART, title(lease), found, weight=Weight.DEGRADED)


def mend(_: Description, seen: Seen) -> None:
    """Set up, give the MAC back, close. Raises OSError."""
    for link, lease in seen.pods:
        if link.mac != GATEWAY_MAC:
            seen.ipr.set_mac(link.ifindex, GATEWAY_MAC)
        if not link.is_up:
            seen.ipr.set_up(link.ifindex)
        if _is_open(seen, link, lease):
            seen.ipr.set_ipv4(link.ifindex, host_end.CLOSED)
            sysctl.write(f"net/ipv6/conf/{link.ifname}/disable_ipv6", "1")


def _is_open(seen: Seen, link: Link, lease: Lease) -> bool:
    return host_end.is_open(link) and not seen.is_queued(lease)
