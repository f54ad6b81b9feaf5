# SPDX-License-Identifier: Apache-2.0
"""Restoring what the node has for its pods after a setup, which may have made empty maps."""

from __future__ import annotations

from collections.abc import Iterable

from pycni.attachments import reclaim
from pycni.attachments.reclaim import cleanup
from pycni.cluster import IPNetwork
from pycni.dataplane import maps
from pycni.errors import FileError, StoreError, TryAgain
from pycni.ipam import published
from pycni.kernel.rtnl import Rtnl
from pycni.node.record import Node
from pycni.pods import endpoints
from pycni.pods.resting import Resting
from pycni.settings import Settings
from pycni.upkeep import host_ports
from pycni.upkeep.endpoints import restore as restore_entries


def restore(
    ipr: Rtnl,
    settings: Settings,
    node: Node,
    *,
    needs_store: bool = True,
    published_before: Iterable[IPNetwork] | None = None,
) -> None:
    """Make entries, published prefixes and host ports agree with the leases.

    Callers hold the network lock. Runs in the node's network namespace. `published_before` is what
    the store has; None: it is asked. Raises PycniError; but nothing about the store without
    `needs_store`: what was published before still is.
    """
    clean_up = cleanup(ipr, settings, node, ports=True)
    with maps.open_endpoints(settings.pin_root) as table:
        endpoints.sweep_all(table, run_dir=settings.run_dir, clean_up=clean_up)
    held = restore_entries(settings.pin_root, ipr, run_dir=settings.run_dir)
    alive = {address for one in held for address in one.addresses}
    # an agent that was killed may have had connections left to forget
    reclaim.AT_ONCE(set(Resting(settings.run_dir)) - alive)
    published.restore_routes(ipr, alive, node=node)
    try:
        published.restore(ipr, alive, node=node, settings=settings, before=published_before)
    except (StoreError, TryAgain, FileError):
        if needs_store:
            raise
    host_ports.mend(ipr, settings, node)
