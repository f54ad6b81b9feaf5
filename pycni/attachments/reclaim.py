"""Reclaiming addresses whose link is gone, and everything that depends on them.

`release` is for a lease whose link has ended; `sweep` looks for all addresses without a link: their
pods ended without a DEL. Both are cheap, and run in the node's network namespace.
"""

from __future__ import annotations

from contextlib import suppress

from pycni import locks
from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.ipam import published
from pycni.kernel.rtnl import Rtnl
from pycni.node.record import Node
from pycni.pods import endpoints, host_ports
from pycni.pods.endpoints import Cleanup
from pycni.pods.lease import Lease
from pycni.settings import Settings


def release(ipr: Rtnl, settings: Settings, lease: Lease) -> int:
    """Reclaim the addresses of a lease whose link is gone; returns how many it still had.

    A lease without addresses is from an ADD that was killed. Only the table knows what that ADD had
    taken, so this sweeps.
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
        clean_up = cleanup(ipr, settings, node, ports=lease.ports)
        for address in lease.entries:
            released += endpoints.release(
                table, address, lease.ifindex, run_dir=settings.run_dir, clean_up=clean_up
            )
    return released


def sweep(ipr: Rtnl, settings: Settings) -> int:
    """Reclaim all addresses whose link is gone; returns how many there were."""
    with (
        locks.network_lock(settings.run_dir, shared=True),
        suppress(NotAvailable),
        maps.open_endpoints(settings.pin_root) as table,
    ):
        clean_up = cleanup(ipr, settings, Node.load_if_any(settings), ports=True)
        return endpoints.sweep(table, run_dir=settings.run_dir, clean_up=clean_up)
    return 0


def cleanup(ipr: Rtnl, settings: Settings, node: Node | None, *, ports: bool) -> Cleanup:
    """What to remove before an address is given back; `ports`: it may have host ports."""

    def clean_up(address: IPAddress) -> None:
        if ports:
            host_ports.teardown((address,))
        if node is not None and published.is_outside(address, node):
            published.withdraw(ipr, address, node=node, settings=settings)

    return clean_up
