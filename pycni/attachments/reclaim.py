# SPDX-License-Identifier: Apache-2.0
"""Reclaiming addresses whose link is gone, and everything that depends on them.

`release` is for leases whose links have ended. `sweep` looks for all addresses without a link:
their pods ended without a DEL. It works in batches, so that setup and teardown need not wait for
its end. All functions run in the node's network namespace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

from pycni import locks
from pycni.cluster import IPAddress
from pycni.dataplane import maps
from pycni.errors import NotAvailable, PycniError
from pycni.ipam import published
from pycni.kernel.forgetting import Forgetting
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.node.record import Node
from pycni.pods import endpoints, host_ports, port_upkeep
from pycni.pods.endpoints import Cleanup, Endpoints
from pycni.pods.lease import Lease
from pycni.settings import Settings

log = logging.getLogger(__name__)

FEW = 16
"""Orphans of others that one DEL sweeps, where no agent may be: it shall not take long."""

Forget = Callable[[Collection[IPAddress]], None]
"""Has the connections of addresses forgotten."""
AT_ONCE: Forget = Forgetting().now


def release(ipr: Rtnl, settings: Settings, lease: Lease, *, forget: Forget = AT_ONCE) -> int:
    """Reclaim the addresses of a lease whose link is gone; returns how many it still had."""
    with suppress(NotAvailable):
        return _release(ipr, settings, [lease], forget)
    return 0


def release_all(
    ipr: Rtnl, settings: Settings, leases: Sequence[Lease], *, forget: Forget = AT_ONCE
) -> int:
    """The same for leases that ended at once. If they cannot be released together, each is tried;
    one that cannot be released is left for the next sweep."""
    try:
        return _release(ipr, settings, leases, forget)
    except PycniError:
        return sum(_try_release(ipr, settings, lease, forget) for lease in leases)


def release_link(ipr: Rtnl, settings: Settings, ifindex: int) -> int:
    """Reclaim the addresses of a link that is gone and had no lease; returns how many there were.

    An ADD was killed before it had written one.
    """
    released = 0
    with suppress(NotAvailable), _writing(settings) as table:
        owners = endpoints.owned(table, ifindex)
        clean_up = cleanup(ipr, settings, Node.load_if_any(settings), ports=True)
        released += endpoints.release(table, owners, run_dir=settings.run_dir, clean_up=clean_up)
    return released


def sweep(
    ipr: Rtnl, settings: Settings, *, limit: int | None = None, forget: Forget = AT_ONCE
) -> int:
    """Reclaim the addresses whose link is gone, up to `limit`; returns how many there were.

    Without a limit, records of host ports without a link go as well: a DEL that the launcher did
    without an agent has left them, or a namespace that ended when nobody looked.

    Callers hold no attachment's lock: nobody shall wait for the orphans of others.
    """
    released = 0
    with suppress(NotAvailable):
        with _writing(settings) as table:
            found = endpoints.orphans(table, limit)
        node = Node.load_if_any(settings)
        clean_up = cleanup(ipr, settings, node, ports=True, forget=forget)
        for batch in endpoints.batches(found):
            with _writing(settings) as table:
                released += endpoints.sweep(
                    table, batch, run_dir=settings.run_dir, clean_up=clean_up
                )
    if limit is None:
        port_upkeep.forget_all_ended(ipr, settings)
    return released


def cleanup(
    ipr: Rtnl, settings: Settings, node: Node | None, *, ports: bool, forget: Forget = AT_ONCE
) -> Cleanup:
    """What to remove before addresses are given back; `ports`: they may have host ports.

    The link is gone, and closed ports come before forgotten connections: so none begins again.
    """

    def clean_up(addresses: Sequence[IPAddress]) -> None:
        if ports:
            host_ports.close(addresses)
        forget(addresses)
        for address in addresses:
            if node is not None and published.is_outside(address, node):
                published.withdraw(ipr, address, node=node, settings=settings)

    return clean_up


def _release(ipr: Rtnl, settings: Settings, leases: Sequence[Lease], forget: Forget) -> int:
    """Of a lease without addresses, only the table knows what its ADD had taken: it was killed."""
    ports = any(lease.ports or not lease.addresses for lease in leases)
    with _writing(settings) as table:
        owners: dict[IPAddress, int] = {}
        for lease in leases:
            own = dict.fromkeys(lease.entries, lease.ifindex)
            owners |= own if lease.addresses else endpoints.owned(table, lease.ifindex)
        node = Node.load_if_any(settings)
        clean_up = cleanup(ipr, settings, node, ports=ports, forget=forget)
        return endpoints.release(table, owners, run_dir=settings.run_dir, clean_up=clean_up)


def _try_release(ipr: Rtnl, settings: Settings, lease: Lease, forget: Forget) -> int:
    try:
        return release(ipr, settings, lease, forget=forget)
    except PycniError as error:
        log.warning("addresses not released container=%s error=%s",
                    quoted(lease.container_id), quoted(error.message))  # fmt: skip
        return 0


@contextmanager
def _writing(settings: Settings) -> Iterator[Endpoints]:
    with (
        locks.network_lock(settings.run_dir, shared=True),
        maps.open_endpoints(settings.pin_root) as table,
    ):
        yield table
