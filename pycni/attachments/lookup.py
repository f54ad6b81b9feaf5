# SPDX-License-Identifier: Apache-2.0
"""Finding an attachment whose link somebody gave another name."""

from __future__ import annotations

from contextlib import suppress

from pycni.dataplane import maps
from pycni.errors import NotAvailable
from pycni.kernel.rtnl import Rtnl
from pycni.pods import endpoints, lease
from pycni.pods.lease import Lease
from pycni.settings import Settings


def find(ipr: Rtnl, settings: Settings, digest: str) -> Lease | None:
    """The lease of the attachment whose key has that digest, whatever its link's name."""
    return lease.find_lease(ipr, digest) or find_renamed(ipr, settings, digest)


def find_renamed(ipr: Rtnl, settings: Settings, digest: str) -> Lease | None:
    """The lease of the attachment whose key has that digest, among renamed links with addresses."""
    with suppress(NotAvailable), maps.open_endpoints(settings.pin_root) as table:
        return lease.find_renamed(ipr, digest, endpoints.renamed(table))
    return None
