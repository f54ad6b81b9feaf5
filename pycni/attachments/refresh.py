# SPDX-License-Identifier: Apache-2.0
"""Refreshing endpoint entries after others have changed the pods' links.

Runs in the node's network namespace. What changes, and what follows from it: pods/link_changes.py.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from pycni import locks
from pycni.dataplane import maps
from pycni.errors import NotAvailable, PycniError
from pycni.kernel.rtnl import Rtnl
from pycni.pods import endpoints, link_changes
from pycni.pods.lease import Lease, leases
from pycni.settings import Settings


class Refreshed(NamedTuple):
    """What a look at one lease found."""

    updated: int
    """Entries that were not up to date."""
    mac: str | None
    """Of the pod's end; None if it is not known, as there is no link or no dataplane."""
    queued: bool | None
    """Whether the pod's packets pass an ingress qdisc of somebody else; None if it is not known."""


def refresh(
    ipr: Rtnl, settings: Settings, lease: Lease, *, queued: bool | None = None
) -> Refreshed:
    """Update the entries of a lease. Raises PycniError.

    `queued` is as in link_changes.endpoint.
    """
    with (
        locks.network_lock(settings.run_dir, shared=True),
        suppress(NotAvailable),
        maps.open_endpoints(settings.pin_root) as table,
    ):
        now = link_changes.endpoint(ipr, lease, queued=queued)
        if now is not None:
            updated = endpoints.update(table, lease.entries, now, run_dir=settings.run_dir)
            return Refreshed(updated, now.mac, now.queued)
    return Refreshed(0, None, None)


def refresh_all(ipr: Rtnl, settings: Settings) -> list[str]:
    """Update the entries of every lease; returns what went wrong, a sentence each."""
    problems = []
    for one in list(leases(ipr)):
        try:
            refresh(ipr, settings, one)
        except PycniError as error:
            problems.append(error.message)
    return problems
