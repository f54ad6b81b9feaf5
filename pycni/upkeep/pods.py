# SPDX-License-Identifier: Apache-2.0
"""Part "pods": the host end of each pod's link: up, with its MAC, as wide as the pod's end, and
closed to the host's stack."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.faults import Fault, Weight
from pycni.kernel import sysctl
from pycni.kernel.links import FarEnd, Link
from pycni.names import GATEWAY_MAC
from pycni.pods import host_end
from pycni.pods.lease import Lease
from pycni.upkeep.description import Description
from pycni.upkeep.hooks import title
from pycni.upkeep.seen import Seen

PART = "pods"


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Those with somebody else's ingress qdisc must be open to the stack (link_changes.py)."""
    for (link, lease), end in zip(seen.pods, seen.pods_ends, strict=True):
        if not link.is_up:
            yield Fault(PART, title(lease), "down")
        if link.mac != GATEWAY_MAC:
            yield Fault(PART, title(lease), f"one with the MAC {link.mac}, not {GATEWAY_MAC}")
        if link.mtu < (least := _least_mtu(d, end)):
            found = f"one with the MTU {link.mtu}, not {least}, so larger packets are lost"
            yield Fault(PART, title(lease), found)
        if _is_open(seen, link, lease):
            found = "open to the host's stack, so a packet that no program checks is forwarded"
            yield Fault(PART, title(lease), found, weight=Weight.DEGRADED)


def mend(d: Description, seen: Seen) -> None:
    """Set up, give the MAC and the MTU back, close. Raises OSError."""
    for (link, lease), end in zip(seen.pods, seen.pods_ends, strict=True):
        if link.mac != GATEWAY_MAC:
            seen.ipr.set_mac(link.ifindex, GATEWAY_MAC)
        if not link.is_up:
            seen.ipr.set_up(link.ifindex)
        if link.mtu < (least := _least_mtu(d, end)):
            seen.ipr.set_mtu(link.ifindex, least)
            # from 1280 bytes on a link gets IPv6 anew, with the host's defaults (addrconf_notify)
            link = seen.ipr.link_at(link.ifindex) or link
        if _is_open(seen, link, lease):
            seen.ipr.set_ipv4(link.ifindex, host_end.CLOSED)
            sysctl.write(f"net/ipv6/conf/{link.ifname}/disable_ipv6", "1")


def _least_mtu(d: Description, end: FarEnd) -> int:
    """A veth drops what is larger than the end that gets it. A pod may widen its own end: what is
    larger than the node's MTU is no matter of ours."""
    return min(end.mtu, d.node.mtu)


def _is_open(seen: Seen, link: Link, lease: Lease) -> bool:
    return host_end.is_open(link) and not seen.is_queued(lease)
