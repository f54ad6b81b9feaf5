# SPDX-License-Identifier: Apache-2.0
"""Restoring what the node has for its pods after a setup, which may have made empty maps."""

from __future__ import annotations

from pathlib import Path

from pycni.attachments import ports, reclaim
from pycni.attachments.reclaim import cleanup
from pycni.dataplane import maps
from pycni.ipam import published
from pycni.kernel.rtnl import Rtnl
from pycni.node.record import Node
from pycni.pods import endpoints, link_changes
from pycni.pods.lease import Lease, leases
from pycni.pods.resting import Resting
from pycni.settings import Settings


def restore(ipr: Rtnl, settings: Settings, node: Node) -> None:
    """Make entries, published prefixes and host ports agree with the leases.

    Callers hold the network lock. Runs in the node's network namespace. Raises PycniError.
    """
    clean_up = cleanup(ipr, settings, node, ports=True)
    with maps.open_endpoints(settings.pin_root) as table:
        endpoints.sweep_all(table, run_dir=settings.run_dir, clean_up=clean_up)
    held = restore_endpoints(settings.pin_root, ipr, run_dir=settings.run_dir)
    alive = {address for one in held for address in one.addresses}
    # an agent that was killed may have had connections left to forget
    reclaim.AT_ONCE(set(Resting(settings.run_dir)) - alive)
    published.restore(ipr, alive, node=node, settings=settings)
    ports.mend(ipr, settings, node)


def restore_endpoints(root: Path, ipr: Rtnl, *, run_dir: Path) -> list[Lease]:
    """Make the endpoints map pinned at `root` agree with the leases; returns the leases.

    Callers hold the network lock. Raises PycniError.
    """
    held = list(leases(ipr))
    with maps.open_endpoints(root) as table:
        for one in held:
            now = link_changes.endpoint(ipr, one)
            if now is not None:
                endpoints.restore(table, one.entries, now, run_dir=run_dir)
    return held
