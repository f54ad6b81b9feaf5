# SPDX-License-Identifier: Apache-2.0
"""What of a node decides about its Services besides the objects: its zone, and which addresses are
a node's or a pod's, so that no Service has them. All of it may change while the agent runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from loader.closing import Closing
from pycni.agent.known import Known
from pycni.cluster import IPAddress, is_routable
from pycni.errors import PycniError
from pycni.kernel.event_socket import EventSocket
from pycni.kernel.netlink_socket import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
from pycni.kernel.rtnl import Rtnl
from pycni.line_limit import LineLimit
from pycni.logfmt import quoted
from pycni.node import kube_proxy
from pycni.services.catalog import Catalog
from pycni.services.selection import Place
from pycni.settings import Settings

ZONE_SECONDS = 60.0
"""After which this node's zone is read again, where hints ask for zones."""

log = logging.getLogger(__name__)


class Surroundings(Closing):
    """Of the node in whose namespace the calling thread is; used by that thread only."""

    def __init__(
        self, settings: Settings, known: Known, ask_zone: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`ask_zone` reads the zone. Raises what it raises, or OSError."""
        self._settings, self._known = settings, known
        self._ask_zone, self._clock = ask_zone, clock
        self.place = Place(settings.node_name, ask_zone())
        """Where the node was at the beginning."""
        self._zone_at = clock()
        self._limit = LineLimit()
        self._version = known.version
        self._others = _addresses_of(known)
        self._events = EventSocket(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
        self._own = own_addresses()

    def owner(self, address: IPAddress) -> str:
        """Whose an address is that no Service may have; else empty. A node that has a Service's
        address itself, as a DNS cache's node does, keeps what pods send there."""
        if any(address in cidr for cidr in self._settings.cluster_cidrs):
            return "a pod's"
        if address in self._own:
            return "this node's"
        return "a node's" if address in self._others else ""

    def look(self, catalog: Catalog) -> bool:
        """Tell the catalog what is different by now; whether anything is. Raises OSError."""
        return any([self._see_addresses(catalog), self._see_zone(catalog)])

    def close(self) -> None:
        self._events.close()

    def _see_addresses(self, catalog: Catalog) -> bool:
        before = self._own, self._others
        if self._events.take() != []:
            self._own = own_addresses()
        if self._version != self._known.version:
            self._version = self._known.version
            self._others = _addresses_of(self._known)
        if before == (self._own, self._others):
            return False
        catalog.owners_changed()
        return True

    def _see_zone(self, catalog: Catalog) -> bool:
        now = self._clock()
        if now - self._zone_at < ZONE_SECONDS:
            return False
        self._zone_at = now
        try:
            return catalog.asks_for_zones and catalog.change_zone(self._ask_zone())
        except PycniError as error:
            if self._limit.take("zone") is not None:
                log.warning("zone not read again error=%s", quoted(error.message))
            return False


def own_addresses() -> frozenset[IPAddress]:
    """The addresses of this node that others can send to, but for those that kube-proxy gave it."""
    with Rtnl() as ipr:
        ipvs = {link.ifindex for link in ipr.links() if link.ifname == kube_proxy.IPVS}
        return frozenset(
            one.ip for one in ipr.addresses() if one.ifindex not in ipvs and is_routable(one.ip)
        )


def _addresses_of(known: Known) -> frozenset[IPAddress]:
    """Of all nodes."""
    return frozenset(one for node in known.nodes or () for one in (node.vtep, *node.addresses))
