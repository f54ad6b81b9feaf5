# SPDX-License-Identifier: Apache-2.0
"""Part "uplink": the interface and the address that the other nodes send to."""

from __future__ import annotations

from collections.abc import Iterator

from pycni import cluster
from pycni.cluster import IPAddress
from pycni.errors import ClusterError, SetupError
from pycni.faults import SETUP, Fault, Weight
from pycni.kernel.links import Link
from pycni.node import modes, overlay, uplink
from pycni.node.uplink import Uplink, Wish
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "uplink"
OVERLAY_MTU = "the overlay's MTU"
BY_SETTINGS = "the uplink by the settings"
BACK = "give it back, or another address: the agent then moves the node there"


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """What a setup can follow has nothing to do for a person."""
    node, holder = d.node, seen.around.holder(d.node.vtep)
    yield from _cut(d, seen, holder)
    if holder is None:
        return
    if seen.link(node.uplink) is None:
        todo = f"name {holder.ifname} in the settings" if d.settings.uplink == node.uplink else ""
        yield Fault(PART, node.uplink, f"gone, and {node.vtep} is on {holder.ifname} now", todo)
    else:
        yield from _moved(d, seen)


def cut(d: Description, seen: Seen) -> Iterator[Fault]:
    """Of the faults, those that cut this node off from all others; at a cost that does not grow
    with the routes of the node."""
    own = (one.ifindex for one in seen.addresses if one.ip == d.node.vtep)
    yield from _cut(d, seen, next(filter(None, map(seen.ipr.link_at, own)), None))


def _cut(d: Description, seen: Seen, holder: Link | None) -> Iterator[Fault]:
    """`holder`: which link has this node's address."""
    node, link = d.node, seen.link(d.node.uplink)
    if holder is None:
        found = "on no interface"
        if link is None:
            found += f", and {node.uplink} is gone"
        yield Fault(PART, f"this node's address {node.vtep}", found, BACK)
    elif _is_unrouted(node.vtep, holder, seen):
        todo = f"run: ip route add local {node.vtep} dev {holder.ifname} table local proto kernel"
        todo += f" src {node.vtep}" if node.vtep.version == 4 else ""
        yield Fault(PART, f"the local route of this node's address {node.vtep}", "gone", todo)
    if link is not None and not link.is_running:
        todo = f"set it up, or plug it in: ip link set {node.uplink} up"
        yield Fault(PART, node.uplink, "down", todo)


def _is_unrouted(vtep: IPAddress, holder: Link, seen: Seen) -> bool:
    """Whether the kernel does not take packets to the address, though an interface has it. Ports of
    a VRF have their local routes in its table."""
    return holder.is_up and not holder.master and bool(overlay.unrouted(seen.ipr, [vtep]))


def _moved(d: Description, seen: Seen) -> Iterator[Fault]:
    """Whether setup would choose another uplink or address now, or another MTU."""
    node = d.node
    if _is_edit(d, seen):
        yield from _next_setup(d, seen)
        return
    try:
        found = _choose(d, seen, Wish.of(d.settings, node))
    except SetupError as error:
        yield Fault(PART, node.uplink, f"no uplink: {error.message}", error.hint)
        return
    if found.vtep != node.vtep:
        why = f"taken by another machine; {found.vtep} is there"
        yield Fault(PART, f"this node's address {node.vtep}", why)
    elif found.ifname != node.uplink:
        yield Fault(PART, node.uplink, f"not the way to the other nodes, {found.ifname} is")
    else:
        yield from _mtu_faults(d, found)


def _choose(d: Description, seen: Seen, wish: Wish) -> Uplink:
    return uplink.choose(seen.around, wish, others=[other.vtep for other in d.others])


def _is_edit(d: Description, seen: Seen) -> bool:
    """Whether the settings name another uplink or address than the node has, and can keep: they
    were edited, and no setup has followed."""
    node, settings = d.node, d.settings
    if settings.uplink in ("", node.uplink) and settings.vtep in (None, node.vtep):
        return False
    try:
        _choose(d, seen, Wish(node.uplink, node.vtep, node.vtep))
    except SetupError:
        return False
    return True


def _next_setup(d: Description, seen: Seen) -> Iterator[Fault]:
    """What it would say to the settings."""
    node = d.node
    try:
        found = _choose(d, seen, Wish.of(d.settings, node))
    except SetupError as error:
        yield Fault(PART, BY_SETTINGS, f"refused: {error.message}", error.hint, Weight.DEGRADED)
        return
    way = f"{found.ifname} with {found.vtep}, not {node.uplink} with {node.vtep}"
    yield Fault(PART, BY_SETTINGS, way, SETUP, Weight.DEGRADED)


def _mtu_faults(d: Description, link: Uplink) -> Iterator[Fault]:
    """The overlay's MTU follows the uplink's, and that of other ways to other nodes."""
    node = d.node
    overhead = modes.overhead(d.settings, node.vtep.version)
    try:
        largest = cluster.overlay_mtu(link.mtu, overhead, d.settings.cluster)
    except ClusterError as error:
        yield Fault(PART, node.uplink, f"too narrow: {error.message}", error.hint)
        return
    asked = d.settings.mtu
    if asked > largest:
        todo = "raise it, or lower `mtu` in the settings"
        weight = Weight.BROKEN if largest < node.mtu else Weight.DEGRADED
        yield Fault(PART, node.uplink, f"one with the MTU {link.mtu}, which leaves {largest} bytes "
                    f"for pods, not {asked}", todo, weight)  # fmt: skip
    elif asked and asked != node.mtu:
        found = f"{node.mtu}, and `mtu` in the settings is {asked}"
        yield Fault(PART, OVERLAY_MTU, found, SETUP, Weight.DEGRADED)
    elif not asked and largest != node.mtu:
        weight = Weight.BROKEN if largest < node.mtu else Weight.DEGRADED
        found = f"one with the MTU {link.mtu}; the overlay was made for one of "
        yield Fault(PART, node.uplink, f"{found}{node.mtu + overhead}", weight=weight)
