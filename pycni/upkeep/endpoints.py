# SPDX-License-Identifier: Apache-2.0
"""Part "endpoints": each pod's addresses lead to its link, as its lease says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.dataplane.maps import Endpoint
from pycni.errors import NotAvailable
from pycni.faults import Fault
from pycni.kernel.rtnl import Rtnl
from pycni.pods import endpoints, link_changes
from pycni.pods.lease import Lease, is_ours, leases
from pycni.upkeep.description import Description
from pycni.upkeep.seen import Seen

PART = "endpoints"
MOMENT = 0.3
"""Seconds in which a link stays as it is, or else it changes all the time."""


def faults(d: Description, seen: Seen) -> Iterator[Fault]:
    """Entries without a lease are no fault: an ADD or a DEL may be under way. Nor is the entry of a
    link that changes all the time: agent/changed_links.py follows it."""
    try:
        table = maps.open_endpoints(d.settings.pin_root)
    except NotAvailable:  # programs.py says so
        return
    with table:
        others = []
        for lease, address, now in _wanted(seen):
            found = table.get(address)
            if found is None:
                yield _fault(lease, address, "in no entry")
            elif found != now:
                others.append((lease, address, now))
        if others:
            time.sleep(MOMENT)
        for lease, address, now in others:
            found = table.get(address)
            if found is not None and found != now == link_changes.look(seen.ipr, lease):
                yield _fault(lease, address, _difference(found, now))


def _wanted(seen: Seen) -> Iterator[tuple[Lease, IPAddress, Endpoint]]:
    """Each address with the entry that it must have."""
    for (link, lease), end in zip(seen.pods, seen.pods_ends, strict=True):
        queued = seen.is_queued(lease)
        now = link_changes.endpoint_of(lease, link, mac=end.mac, queued=queued)
        for address in lease.entries:
            yield lease, address, now


def _fault(lease: Lease, address: IPAddress, found: str) -> Fault:
    return Fault(PART, f"{address} of {lease.container_id[:13]}", found)


def _difference(found: Endpoint, now: Endpoint) -> str:
    if found.mac != now.mac:
        return f"in an entry with the MAC {found.mac}, not {now.mac}"
    return "in an entry that is wrong"


def mend(d: Description, seen: Seen) -> None:
    """Write the entries that differ. Raises PycniError."""
    restore(d.settings.pin_root, seen.ipr, run_dir=d.settings.run_dir)


def restore(root: Path, ipr: Rtnl, *, run_dir: Path) -> list[Lease]:
    """Make the endpoints map pinned at `root` agree with the leases; returns the leases.

    An entry that leads to another link stays only if that link's lease has the address, too, or if
    an ADD may be making the link. Callers hold the network lock. Raises PycniError.
    """
    held = list(leases(ipr))
    entries = {one.ifindex: one.entries for one in held}

    def may_have(ifindex: int, address: IPAddress) -> bool:
        if ifindex in entries:
            return address in entries[ifindex]
        link = ipr.link_at(ifindex)
        return link is not None and is_ours(link)

    with maps.open_endpoints(root) as table:
        for one in held:
            now = link_changes.endpoint(ipr, one)
            if now is not None:
                endpoints.restore(table, one.entries, now, run_dir=run_dir, may_have=may_have)
    return held
