"""When this node's underlay address goes, the node moves to the one that came instead.

A default route that moves, or a further address, is no reason: the other nodes still reach this one
where they know it. `setup` does the move, as it would at the next start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pycni.errors import SetupError
from pycni.kernel.fib import ADDRESS_GROUPS, Fib
from pycni.kernel.rtnl import Rtnl
from pycni.node import uplink
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.setup import provision

LOOK = 1.0
"""Seconds between two looks at whether to stop."""

log = logging.getLogger(__name__)


def follow(settings: Settings, stop: threading.Event, moved: Callable[[], object]) -> None:
    """Move the node whenever its address is gone and there is another; calls `moved` after that.

    Runs in the node's namespace until `stop`. Raises PycniError, LoaderError or OSError.
    """
    with Fib(ADDRESS_GROUPS) as fib, Rtnl() as ipr:
        while not stop.is_set():
            found = _replacement(settings, ipr)
            if found is not None:
                log.info("moving vtep=%s uplink=%s", found.vtep, found.ifname)
                provision.setup(settings)
                moved()
            while fib.changes() == [] and not stop.is_set():
                fib.wait(LOOK)


def _replacement(settings: Settings, ipr: Rtnl) -> uplink.Uplink | None:
    """Where to move to; None if there is no need to, or no place.

    Never to the other family, in which the other nodes could not be reached.
    """
    vtep = Node.load(settings).vtep
    if vtep in {address.ip for address in ipr.addresses()}:
        return None
    try:
        found = uplink.find(ipr, ifname=settings.uplink, vtep=settings.vtep)
    except SetupError as error:
        log.warning("the address %s of this node is gone: %s", vtep, error.message)
        return None
    return found if found.vtep.version == vtep.version else None
