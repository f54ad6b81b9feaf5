"""Keeping what the node has for its pods' addresses true: after a crash, a reboot, a lost map.

`sweep` is for links that ended without a DEL, and is cheap; `restore` is for setup, which may have
made empty maps under living pods. Both run in the node's namespace.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pycni import locks
from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.errors import NotAvailable, PycniError
from pycni.ipam import published
from pycni.kernel.rtnl import Rtnl
from pycni.node.record import Node
from pycni.pods import (
    endpoints,
    host_ports,
    lease,
    link_changes,
)
from pycni.pods.endpoints import Belongings
from pycni.pods.lease import Lease, leases
from pycni.settings import Settings


def sweep(ipr: Rtnl, settings: Settings) -> int:
    """Release the addresses whose links are gone, with a namespace or in a reboot; how many."""
    with (
        locks.network_lock(settings.run_dir, shared=True),
        suppress(NotAvailable),
        maps.open_endpoints(settings.pin_root) as table,
    ):
        take_away = belongings(ipr, settings, Node.load_if_any(settings), ports=True)
        return endpoints.sweep(table, run_dir=settings.run_dir, belongings=take_away)
    return 0


def release(ipr: Rtnl, settings: Settings, lease: Lease) -> int:
    """Give back what addresses a lease still has, its link being gone; how many they were.

    One without addresses is of an ADD that was killed: what that had taken only the table knows.
    """
    if not lease.addresses:
        return sweep(ipr, settings)
    released = 0
    with (
        locks.network_lock(settings.run_dir, shared=True),
        suppress(NotAvailable),
        maps.open_endpoints(settings.pin_root) as table,
    ):
        node = Node.load_if_any(settings)
        take_away = belongings(ipr, settings, node, ports=lease.ports)
        for address in lease.entries:
            released += endpoints.release(
                table, address, lease.ifindex, run_dir=settings.run_dir, belongings=take_away
            )
    return released


def follow(ipr: Rtnl, settings: Settings, lease: Lease, *, queued: bool | None = None) -> int:
    """Have the entries of a lease be as its link is now; how many were not. `queued` spares a
    question, see alterations.endpoint. Raises PycniError."""
    with (
        locks.network_lock(settings.run_dir, shared=True),
        suppress(NotAvailable),
        maps.open_endpoints(settings.pin_root) as table,
    ):
        now = link_changes.endpoint(ipr, lease, queued=queued)
        if now is not None:
            return endpoints.update(table, lease.entries, now, run_dir=settings.run_dir)
    return 0


def follow_all(ipr: Rtnl, settings: Settings) -> list[str]:
    """The same for every lease; what went wrong, a sentence each."""
    problems = []
    for one in list(leases(ipr)):
        try:
            follow(ipr, settings, one)
        except PycniError as error:
            problems.append(error.message)
    return problems


def find_renamed(ipr: Rtnl, settings: Settings, digest: str) -> Lease | None:
    """The lease of an attachment whose link somebody gave another name."""
    with suppress(NotAvailable), maps.open_endpoints(settings.pin_root) as table:
        return lease.find_renamed(ipr, digest, endpoints.renamed(table))
    return None


def restore(ipr: Rtnl, settings: Settings, node: Node) -> None:
    """Make entries, published prefixes and host ports agree with the leases.

    Callers hold the network lock. Raises PycniError.
    """
    take_away = belongings(ipr, settings, node, ports=True)
    with maps.open_endpoints(settings.pin_root) as table:
        endpoints.sweep(table, run_dir=settings.run_dir, belongings=take_away)
    held = restore_endpoints(settings.pin_root, ipr, run_dir=settings.run_dir)
    alive = {address for one in held for address in one.addresses}
    published.restore(ipr, alive, node=node, settings=settings)
    host_ports.sweep(alive)


def restore_endpoints(root: Path, ipr: Rtnl, *, run_dir: Path) -> list[Lease]:
    """Make the endpoints map pinned at `root` agree with the leases, and return those.

    Callers hold the network lock. Raises PycniError.
    """
    held = list(leases(ipr))
    with maps.open_endpoints(root) as table:
        for one in held:
            now = link_changes.endpoint(ipr, one)
            if now is not None:
                endpoints.restore(table, one.entries, now, run_dir=run_dir)
    return held


def belongings(ipr: Rtnl, settings: Settings, node: Node | None, *, ports: bool) -> Belongings:
    """What to take away before an address is given back; `ports`: it may have host ports."""

    def take_away(address: IPAddress) -> None:
        if ports:
            host_ports.teardown((address,))
        if node is not None and published.is_outside(address, node):
            published.withdraw(ipr, address, node=node, settings=settings)

    return take_away
