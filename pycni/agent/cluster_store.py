# SPDX-License-Identifier: Apache-2.0
"""Follows the cluster store: writes the tables of the nodes, `vteps`, `remotes` and `nodes`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pycni import locks
from pycni.agent.loops import Run
from pycni.attachments import node_addresses
from pycni.logfmt import quoted
from pycni.node import peers
from pycni.node.directory import Directory
from pycni.settings import Settings
from pycni.stores import Synced, open_store

log = logging.getLogger(__name__)


def follow(
    settings: Settings, run: Run, *, changed: Callable[[], object], rejections: peers.RejectionNews
) -> None:
    """Until the agent stops; calls `changed` when entries changed. Raises PycniError or OSError.

    Changes nothing as long as the store does not know this node: it is then another store, or one
    that lost its data.
    """
    members = peers.Membership(settings.node_name)
    directory = Directory(settings.node_name)
    agrees = False
    """Whether the tables were as told at the last Synced."""
    believed = True
    for event in open_store(settings.store_url, settings.cluster, create=False).watch(run.stop):
        members.feed(event)
        directory.feed(event)
        if not isinstance(event, Synced):
            continue
        _log_rejections(rejections.take(members.rejected))
        if not members.knows_us:
            if believed:
                log.warning("store ignored, it does not know this node; run: pycni setup "
                            "store=%s node=%s", settings.store_url, settings.node_name)  # fmt: skip
            believed = False
            continue
        believed = True
        before, after = members.take_changes()
        moved = directory.take_changes()
        # a setup may be replacing the maps
        with locks.network_lock(settings.run_dir, shared=True):
            if agrees:
                count = peers.write_changes(settings.pin_root, before, after)
                node_addresses.write_changes(settings.pin_root, moved)
            else:
                count = peers.write(settings.pin_root, members.others, synced=True)
                node_addresses.write(settings.pin_root, directory)
        agrees = True
        run.well()
        if count:
            changed()
            log.info("other nodes written nodes=%d entries_changed=%d", len(members.others), count)


def _log_rejections(news: list[tuple[str, str]]) -> None:
    for name, reason in news:
        if reason:
            log.warning("record set aside node=%s reason=%s", quoted(name), quoted(reason))
        else:
            log.info("record no longer set aside node=%s", quoted(name))
