# SPDX-License-Identifier: Apache-2.0
"""Follows this node's underlay address: when it is gone, the node moves to the address that came.

While the address is there the node stays, whatever else changes: the other nodes reach it at the
address they know. The move is a setup, as at the next start of the agent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pycni.agent.loops import Run
from pycni.errors import SetupError
from pycni.kernel.fib import ADDRESS_GROUPS, Fib
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.node import uplink
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.setup import provision

LOOK = 1.0
"""Seconds between two looks at whether to stop."""

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run, *, moved: Callable[[], object]) -> None:
    """Until the agent stops, in the node's namespace; calls `moved` after each move.

    Raises PycniError, LoaderError or OSError.
    """
    with Fib(ADDRESS_GROUPS) as fib, Rtnl() as ipr:
        while not run.stopping:
            found = replacement(settings, ipr)
            if found is not None:
                log.info("moving vtep=%s uplink=%s", quoted(found.vtep), quoted(found.ifname))
                provision.setup(settings)
                moved()
            run.well()
            while fib.changes() == [] and not run.stopping:
                fib.wait(LOOK)


def replacement(settings: Settings, ipr: Rtnl) -> uplink.Uplink | None:
    """Where this node has to move; None if its address is there, or there is no other.

    Never an address of the other family: the other nodes have none of that family.
    """
    vtep = Node.load(settings).vtep
    if vtep in {address.ip for address in ipr.addresses()}:
        return None
    try:
        found = uplink.find(ipr, ifname=settings.uplink, vtep=settings.vtep)
    except SetupError as error:
        log.warning("address gone vtep=%s error=%s", quoted(vtep), quoted(error.message))
        return None
    return found if found.vtep.version == vtep.version else None
