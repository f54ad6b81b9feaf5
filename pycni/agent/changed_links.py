"""Follows what others do to the pods' links, and changes the pods' endpoints accordingly."""

from __future__ import annotations

import errno
import logging

from pycni.agent.loops import Run
from pycni.attachments import refresh
from pycni.errors import PycniError
from pycni.kernel.rtnl import Rtnl
from pycni.logfmt import quoted
from pycni.pods import link_changes
from pycni.pods.lease import Lease, find_lease_at
from pycni.pods.link_changes import Change
from pycni.settings import Settings

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run) -> None:
    """Until the agent stops, in the node's namespace: first all links, then each as the kernel
    tells of it. Raises PycniError or OSError."""
    known: dict[int, str] = {}
    """MACs that were looked at: most of the kernel's messages say nothing new."""
    with link_changes.subscribe() as events, Rtnl() as ipr:
        _take_all(ipr, settings)
        run.well()
        while not run.stopping:
            try:
                changes = list(link_changes.changes(events))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                log.warning("link events were lost, looking at all links")
                _take_all(ipr, settings)
                continue
            for change in changes:
                if change.mac is None or known.get(change.ifindex) != change.mac:
                    lease = find_lease_at(ipr, change.ifindex)
                    if lease and _take(ipr, settings, lease, change) and change.mac:
                        known[change.ifindex] = change.mac


def _take_all(ipr: Rtnl, settings: Settings) -> None:
    for problem in refresh.refresh_all(ipr, settings):
        log.warning("link not followed error=%s", quoted(problem))


def _take(ipr: Rtnl, settings: Settings, lease: Lease, change: Change) -> bool:
    """False if it failed."""
    try:
        if refresh.refresh(ipr, settings, lease, queued=change.queued):
            log.info("link followed link=%s container=%s", lease.host_ifname, lease.container_id)
    except PycniError as error:
        log.warning("link not followed link=%s error=%s", lease.host_ifname, quoted(error.message))
        return False
    return True
