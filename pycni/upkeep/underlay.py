# SPDX-License-Identifier: Apache-2.0
"""Part "uplink": the interface and the address that the other nodes send to."""

from __future__ import annotations

from collections.abc import Iterator

from pycni import cluster
from pycni.errors import ClusterError
from pycni.faults import Fault, Weight
from pycni.kernel.links import Link
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "uplink"
BACK = "give it back, or another address: the agent then moves the node there"


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """What a setup can follow has nothing to do for a person."""
    node = d.node
    holders = [address.ifindex for address in seen.addresses if address.ip == node.vtep]
    link = seen.link(node.uplink)
    if not holders:
        found = "on no interface"
        if link is None:
            found += f", and {node.uplink} is gone"
        yield Fault(PART, f"this node's address {node.vtep}", found, BACK)
    elif link is None:
        at = seen.ipr.link_at(holders[0])
        where = at.ifname if at is not None else "another interface"
        todo = f"name {where} in the settings" if d.settings.uplink == node.uplink else ""
        yield Fault(PART, node.uplink, f"gone, and {node.vtep} is on {where} now", todo)
    if link is not None:
        if not link.is_running:
            todo = f"set it up, or plug it in: ip link set {node.uplink} up"
            yield Fault(PART, node.uplink, "down", todo)
        yield from _mtu_faults(d, link)


def _mtu_faults(d: Description, link: Link) -> Iterator[Fault]:
    """The overlay's MTU follows the uplink's."""
    node = d.node
    try:
        largest = cluster.overlay_mtu(link.mtu, node.vtep.version, d.settings.cluster)
    except ClusterError as error:
        yield Fault(PART, node.uplink, f"too narrow: {error.message}", error.hint)
        return
    if d.settings.mtu > largest:
        todo = "raise it, or lower `mtu` in the settings"
        yield Fault(PART, node.uplink, f"one with the MTU {link.mtu}, which leaves {largest} bytes "
                    f"for pods, not {d.settings.mtu}", todo)  # fmt: skip
    elif (d.settings.mtu or largest) != node.mtu:
        weight = Weight.BROKEN if largest < node.mtu else Weight.DEGRADED
        found = f"one with the MTU {link.mtu}; the overlay was made for one of "
        overhead = cluster.VXLAN_OVERHEAD[node.vtep.version]
        yield Fault(PART, node.uplink, f"{found}{node.mtu + overhead}", weight=weight)
