# SPDX-License-Identifier: Apache-2.0
"""Part "device": the overlay device, its MAC, MTU, flags and addresses."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.cluster import IPAddress
from pycni.faults import Fault, Weight
from pycni.kernel.links import IFF_NOARP, Link
from pycni.names import GATEWAY_MAC
from pycni.node import claim, overlay
from pycni.node.overlay import DEVICE
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = f"device {DEVICE}"
ADDRESSES = "addresses"


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Of the device itself."""
    link = seen.link(DEVICE)
    if link is None:
        former = claim.renamed(d.settings, seen.links)
        yield _fault("gone" if former is None else f"renamed: it is {former.ifname} now")
        return
    if not overlay.is_ours(link, d.node.port):
        yield _fault("an interface that pycni did not make", todo=f"run: ip link del {DEVICE}")
        return
    if not link.is_up:
        yield _fault("down")
    elif not link.is_running:
        yield _fault("without a carrier", todo=f"run: ip link set {DEVICE} protodown off")
    if link.mac != GATEWAY_MAC:
        yield _fault(f"one with the MAC {link.mac}, not {GATEWAY_MAC}")
    if link.mtu != d.node.mtu:
        yield _fault(f"one with the MTU {link.mtu}, not {d.node.mtu}", weight=Weight.DEGRADED)
    if not link.flags & IFF_NOARP:
        yield _fault("resolving addresses (no flag NOARP)", weight=Weight.DEGRADED)
    if link.master:
        master = seen.ipr.link_at(link.master)
        name = f"{master.kind} {master.ifname}" if master is not None else "another interface"
        yield _fault(f"a port of the {name}, which takes the packets of pods")


def mend(d: Description, seen: Seen) -> None:
    """Not if it is gone: programs know the device by its number, so that takes a setup."""
    claim.rename_back(d.settings, seen.ipr)
    link = seen.ipr.link(DEVICE)
    if link is None or not overlay.is_ours(link, d.node.port):
        return
    if link.mac != GATEWAY_MAC:
        seen.ipr.set_mac(link.ifindex, GATEWAY_MAC)
    if link.mtu != d.node.mtu:
        seen.ipr.set_mtu(link.ifindex, d.node.mtu)
    if link.master:
        seen.ipr.set_master(link.ifindex, 0)
    if not link.is_up or not link.flags & IFF_NOARP:
        seen.ipr.set_up(link.ifindex, flags=IFF_NOARP)


def address_faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Of the gateways' addresses and local routes. Addresses that others gave the device are no
    fault."""
    link = seen.link(DEVICE)
    if link is not None:
        for gateway in _unrouted(d, seen, link):
            yield Fault(ADDRESSES, f"the local route of {gateway}", "gone")
        for gateway in _missing(d, seen, link):
            todo = overlay.todo_of(gateway.version)
            yield Fault(ADDRESSES, f"{gateway} of {DEVICE}", "gone", todo)


def mend_addresses(d: Description, seen: Seen) -> None:
    """Add what is missing."""
    link = seen.link(DEVICE)
    if link is not None:
        for gateway in _missing(d, seen, link):
            if not overlay.todo_of(gateway.version):
                seen.ipr.add_address(link.ifindex, gateway)
        for gateway in _unrouted(d, seen, link):
            overlay.restore_route(seen.ipr, link.ifindex, gateway)


def _unrouted(d: Description, seen: Seen, link: Link) -> list[IPAddress]:
    """Gateways that the device has, and that the kernel does not take for the host's."""
    if not link.is_up:
        return []
    missing = _missing(d, seen, link)
    return overlay.unrouted(seen.ipr, [one for one in d.node.gateways if one not in missing])


def _missing(d: Description, seen: Seen, link: Link) -> list[IPAddress]:
    have = {address.ip for address in seen.addresses if address.ifindex == link.ifindex}
    return [gateway for gateway in d.node.gateways if gateway not in have]


def _fault(found: str, *, todo: str = "", weight: Weight = Weight.BROKEN) -> Fault:
    return Fault(PART, DEVICE, found, todo, weight)
