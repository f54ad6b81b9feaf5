# SPDX-License-Identifier: Apache-2.0
"""Follows the cluster store: writes the tables of the nodes, `vteps`, `remotes` and `nodes`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pycni import locks
from pycni.agent.known import Known
from pycni.agent.loops import Run
from pycni.errors import SetupError
from pycni.logfmt import quoted
from pycni.node import overlay_guard, peers
from pycni.node.directory import Directory
from pycni.settings import Settings
from pycni.stores import NodeRecord, Synced, open_store
from pycni.upkeep import addresses

log = logging.getLogger(__name__)


def follow(
    settings: Settings,
    run: Run,
    *,
    changed: Callable[[], object],
    rejections: peers.RejectionNews,
    known: Known | None = None,
) -> None:
    """Until the agent stops; calls `changed` when entries changed. Raises PycniError or OSError.

    `known` is told of all nodes, also of those of a store that is not believed.

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
            if known is not None:
                known.tell(members.nodes)
            continue
        believed = True
        before, after = members.take_changes()
        moved = directory.take_changes()
        # a setup may be replacing the maps
        with locks.network_lock(settings.run_dir, shared=True):
            if agrees:
                count = peers.write_changes(settings.pin_root, before, after)
                addresses.write_changes(settings.pin_root, moved)
            else:
                count = peers.write(settings.pin_root, members.others, synced=True)
                addresses.write(settings.pin_root, directory)
            if known is not None:  # under the lock: whoever compares both holds it alone
                known.tell(members.nodes)
            _write_guard(members.others, changes=(before, after) if agrees else None)
        agrees = True
        run.well()
        if count:
            changed()
            log.info("other nodes written nodes=%d entries_changed=%d", len(members.others), count)


def _write_guard(
    others: list[NodeRecord], *, changes: tuple[list[NodeRecord], list[NodeRecord]] | None
) -> None:
    """Never stops the following: what is missing in the guard, its own faults tell."""
    try:
        if changes is None or not overlay_guard.follow_changes(*changes):
            overlay_guard.follow_all(others)
    except SetupError as error:
        log.warning("guard not written error=%s", quoted(error.message))


def _log_rejections(news: list[tuple[str, str]]) -> None:
    for name, reason in news:
        if reason:
            log.warning("record set aside node=%s reason=%s", quoted(name), quoted(reason))
        else:
            log.info("record no longer set aside node=%s", quoted(name))
