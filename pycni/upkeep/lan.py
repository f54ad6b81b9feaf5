# SPDX-License-Identifier: Apache-2.0
"""Part "lan": the node reaches its pods on the LAN, by its own child of their parent.

A parent may be renamed while it has pods. It keeps them, and its child the name and MAC that it
has, which the pods know: both are found as the leases name them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycni import locks
from pycni.cluster import IPAddress
from pycni.faults import Fault, Weight
from pycni.kernel.links import Link
from pycni.lan import host_child, leases, parents
from pycni.lan.devices import DEVICES
from pycni.lan.leases import LanLease
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "lan"
RENAMED = (
    'write "master": "{now}" in the network list, or give the interface its name back; pods that '
    "are there go on. This ends when they are restarted"
)


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Of parents with pods: gone or down, without the child, or without a route to a pod."""
    for name, held in _by_parent(d, seen).items():
        parent = _parent(seen, name, held)
        thing = f"{name}, which pods are on,"
        if parent is None:
            yield Fault(PART, thing, "gone", "restart the pods that were on it")
            continue
        if (now := parent.ifname) != name:
            yield Fault(PART, thing, f"renamed: they are on {now} now",
                        RENAMED.format(name=name, now=now), Weight.DEGRADED)  # fmt: skip
        if not parent.is_up:
            yield Fault(PART, thing, "down", f"ip link set {now} up")
            continue
        parent = parent._replace(ifname=name)
        child = host_child.find(seen.ipr, parent)
        if child is None or not child.is_up:
            found = "down" if child else "gone"
            yield Fault(PART, f"{host_child.name_of(name)}, the way to pods on {name},", found)
            continue
        for address in _unrouted(seen, child, held):
            yield Fault(PART, f"the route to the pod {address}", "gone")


def mend(d: Description, seen: Seen) -> None:
    """Make child and routes. A parent that is gone or down is not ours to mend."""
    with locks.lan_lock(d.settings.run_dir):
        for name, held in _by_parent(d, seen).items():
            parent = _parent(seen, name, held)
            if parent is None or not parent.is_up:
                continue
            parent = parent._replace(ifname=name)
            device, mode = DEVICES[held[0].device], held[0].mode
            child = host_child.setup(seen.ipr, device, parent=parent, mode=mode, node=d.node.name)
            own = [address.ip for address in parents.addresses(seen.ipr, parent)]
            for lease in held:
                pod = leases.link_of(seen.ipr, lease)
                for route in host_child.routes(child, lease.addresses, [*own, d.node.vtep]):
                    host_child.add_way(seen.ipr, child, route, pod)


def _parent(seen: Seen, name: str, held: list[LanLease]) -> Link | None:
    pod = leases.link_of(seen.ipr, held[0])
    return None if pod is None else parents.carrying(seen.ipr, name, pod)


def _by_parent(d: Description, seen: Seen) -> dict[str, list[LanLease]]:
    """The living pods, by the name that their parent had when they were added."""
    found: dict[str, list[LanLease]] = {}
    for lease in leases.leases(d.settings.run_dir):
        if leases.is_alive(seen.ipr, lease):
            found.setdefault(lease.parent, []).append(lease)
    return found


def _unrouted(seen: Seen, child: Link, held: list[LanLease]) -> list[IPAddress]:
    have = {
        route.dst.network_address
        for version in (4, 6)
        for route in seen.ipr.routes_by(child.ifindex, version)
    }
    return [one for lease in held for one in lease.addresses if one not in have]
