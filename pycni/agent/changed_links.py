# SPDX-License-Identifier: Apache-2.0
"""Follows what others do to the pods' links, and changes the pods' endpoints accordingly."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from pycni.agent import rounds
from pycni.agent.loops import Run
from pycni.attachments import refresh
from pycni.attachments.refresh import Refreshed
from pycni.errors import PycniError
from pycni.kernel.rtnl import Rtnl
from pycni.line_limit import LineLimit, mention
from pycni.logfmt import quoted
from pycni.pods import link_changes
from pycni.pods.lease import Lease, find_lease_at
from pycni.pods.link_changes import Change
from pycni.settings import Settings

LINKS_NAMED = 256
"""Links that the log names in one interval of its limit."""

NOTHING = Refreshed(0, None, None)

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run) -> None:
    """Until the agent stops, in the node's namespace: first all links, then each as the kernel
    tells of it. Raises PycniError or OSError."""
    with link_changes.subscribe() as events, Rtnl() as ipr:
        links = Links(ipr, settings)
        rounds.follow(
            events,
            run,
            everything=links.take_all,
            some=lambda happened: links.take(link_changes.changes(happened)),
        )


@dataclass
class Links:
    """The pods' links, and what was last seen of them."""

    ipr: Rtnl
    settings: Settings
    _last: dict[int, Refreshed] = field(default_factory=dict)
    """By ifindex of the host's end: what the kernel had when it was asked. Most events say nothing
    new. What an event says of the MAC does not count: pods can make it up."""
    _limit: LineLimit = field(default_factory=lambda: LineLimit(subjects=LINKS_NAMED))

    def take_all(self) -> None:
        """Look at all links."""
        self._last.clear()
        for problem in refresh.refresh_all(self.ipr, self.settings):
            log.warning("link not followed error=%s", quoted(problem))

    def take(self, changes: Iterable[Change]) -> None:
        """Look at the links that changed, at each once."""
        news = (one for one in changes if not one.mac or one.mac != self._known(one.ifindex).mac)
        for change in _merged(news):
            lease = find_lease_at(self.ipr, change.ifindex)
            if lease is None:
                self._last.pop(change.ifindex, None)
            else:
                self._take(lease, change)

    def _known(self, ifindex: int) -> Refreshed:
        return self._last.get(ifindex, NOTHING)

    def _take(self, lease: Lease, change: Change) -> None:
        # who asks the kernel for a qdisc makes an event of it: for this loop, and for the keeper
        queued = self._known(change.ifindex).queued if change.queued is None else change.queued
        try:
            found = refresh.refresh(self.ipr, self.settings, lease, queued=queued)
        except PycniError as error:
            self._last.pop(change.ifindex, None)
            if (left_out := self._limit.take(f"{lease.host_ifname} failed")) is not None:
                log.warning("link not followed link=%s error=%s%s", quoted(lease.host_ifname),
                            quoted(error.message), mention(left_out))  # fmt: skip
            return
        if found.mac is not None:
            self._last[change.ifindex] = found
        if found.updated and (left_out := self._limit.take(lease.host_ifname)) is not None:
            log.info("link followed link=%s container=%s%s", quoted(lease.host_ifname),
                     quoted(lease.container_id), mention(left_out))  # fmt: skip


def _merged(changes: Iterable[Change]) -> list[Change]:
    """One change for each link: the last that is said of each of its parts."""
    found: dict[int, Change] = {}
    for change in changes:
        before = found.get(change.ifindex)
        if before is not None:
            change = Change(
                change.ifindex,
                mac=change.mac or before.mac,
                queued=before.queued if change.queued is None else change.queued,
            )
        found[change.ifindex] = change
    return list(found.values())
