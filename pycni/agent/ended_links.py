# SPDX-License-Identifier: Apache-2.0
"""Follows the pods' links to their end: a pod's namespace may end without a DEL.

Gives back what the pod had: its entries, published addresses, host ports, and its addresses of
another IPAM.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from pycni.agent import rounds
from pycni.agent.loops import Run
from pycni.attachments import reclaim
from pycni.attachments.on_lan import detaching
from pycni.ipam import delegation
from pycni.kernel import link_events
from pycni.kernel.event_socket import Event
from pycni.kernel.forgetting import Forgetting
from pycni.kernel.links import Link
from pycni.kernel.rtnl import Rtnl
from pycni.names import ALIAS_HEAD, CHILD_HEAD, NAME_HEAD
from pycni.pods import port_upkeep
from pycni.pods.lease import read_lease
from pycni.settings import Settings

log = logging.getLogger(__name__)


def follow(settings: Settings, forgetting: Forgetting, run: Run) -> None:
    """Until the agent stops, in the node's namespace: first everything that has no link any more,
    then each link as the kernel says that it is gone. Raises PycniError or OSError.

    A DEL hears of the link at the same time, and waits for the addresses that are released here: so
    this may not take long, and leaves the connections to `forgetting`.
    """
    with link_events.subscribe_to_ends() as events, Rtnl() as ipr:
        rounds.follow(
            events,
            run,
            everything=lambda: _sweep(ipr, settings, forgetting),
            some=lambda happened: _follow(ipr, settings, forgetting, happened),
        )


def _follow(
    ipr: Rtnl, settings: Settings, forgetting: Forgetting, happened: Sequence[Event]
) -> None:
    """A pod on the LAN has no link here: its namespace ends, or the node's own link beside it."""
    links = list(link_events.ended(happened))
    _release(ipr, settings, forgetting, links)
    is_on_lan = any(link.ifname.startswith(CHILD_HEAD) for link in links)
    if is_on_lan or link_events.tell_of_namespaces(happened):
        detaching.sweep(ipr, settings)
        _release_delegated(settings, 0)  # a killed DEL may have left no more than that


def _release(ipr: Rtnl, settings: Settings, forgetting: Forgetting, links: Iterable[Link]) -> None:
    """Give back what pods had whose links are gone, by the links' aliases.

    A link without a readable alias was never claimed, or somebody edited it; one without our name
    was renamed. Either takes a sweep.
    """
    gone = [
        read_lease(link)
        for link in links
        if link.ifname.startswith(NAME_HEAD)
        or (link.alias.startswith(ALIAS_HEAD) and not link.ifname.startswith(CHILD_HEAD))
    ]
    if None in gone:
        _sweep(ipr, settings, forgetting)
    elif leases := [lease for lease in gone if lease]:
        addresses = reclaim.release_all(ipr, settings, leases, forget=forgetting.soon)
        for lease in leases:
            if lease.ports:
                port_upkeep.forget_ended(ipr, settings, lease.key_digest)
        _release_delegated(settings, addresses)


def _sweep(ipr: Rtnl, settings: Settings, forgetting: Forgetting) -> None:
    detaching.sweep(ipr, settings)
    _release_delegated(settings, reclaim.sweep(ipr, settings, forget=forgetting.soon))


def _release_delegated(settings: Settings, addresses: int) -> None:
    """The last step of a release; `addresses`: how many were given back before."""
    delegated = delegation.release_orphans(settings)
    if addresses or delegated:
        log.info("released addresses=%d delegated=%d", addresses, delegated)
