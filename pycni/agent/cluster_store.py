# SPDX-License-Identifier: Apache-2.0
"""Follows the cluster store: writes the tables of the nodes, `vteps`, `remotes` and `nodes`."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from loader.errors import LoaderError
from pycni import locks
from pycni.agent.known import Known
from pycni.agent.loops import Run
from pycni.cluster import IPAddress
from pycni.errors import PycniError, SetupError
from pycni.kernel import node_events
from pycni.kernel.memory import give_back
from pycni.kernel.rtnl import Rtnl
from pycni.line_limit import LineLimit, mention
from pycni.logfmt import quoted
from pycni.node import overlay_guard, peers
from pycni.node.directory import Directory
from pycni.node.report import LEFT_OUT, SET_ASIDE, Report
from pycni.settings import Settings
from pycni.setup import provision
from pycni.stores import NodeRecord, Synced, open_store, resync_seconds
from pycni.upkeep import node_addresses

RESYNC_SPREAD = 0.2
"""Part of the time between two readings of all that an agent leaves out by chance: not all agents
read at once."""
LINES = 10
"""About nodes that were written, in each interval of LineLimit."""
TOLD = 100
"""Records that the report names."""

log = logging.getLogger(__name__)


@dataclass
class Memory:
    """What outlives a watch."""

    report: Report
    known: Known = field(default_factory=Known)
    """Told of all nodes, also of those of a store that is not believed."""
    rejections: peers.RejectionNews = field(default_factory=peers.RejectionNews)
    limit: LineLimit = field(default_factory=LineLimit)
    news: LineLimit = field(default_factory=lambda: LineLimit(lines=LINES))
    growth: LineLimit = field(default_factory=LineLimit)
    """Of setups that make room in the maps, too."""
    believed: bool = True
    """Whether the store knew this node when it was last asked."""
    others: tuple[NodeRecord, ...] = ()
    """The other nodes, as last written. Other threads read it."""


class Until(threading.Event):
    """Set when another event is, or a time has come."""

    def __init__(self, stop: threading.Event, seconds: float) -> None:
        super().__init__()
        self._stop = stop
        self._end = time.monotonic() + seconds

    def is_set(self) -> bool:
        return self._stop.is_set() or time.monotonic() >= self._end

    def wait(self, timeout: float | None = None) -> bool:
        left = max(0.0, self._end - time.monotonic())
        self._stop.wait(left if timeout is None else min(left, timeout))
        return self.is_set()


def follow(settings: Settings, run: Run, *, changed: Callable[[], object], memory: Memory) -> None:
    """Until the agent stops; calls `changed` when entries changed. Raises PycniError or OSError.

    Changes nothing as long as the store does not know this node: it is then another store, or one
    that lost its data.
    """
    with suppress(OSError):  # then what is written here is looked at as what others do
        node_events.ignore_this_thread()
    while not run.stopping:
        seconds = resync_seconds(settings.store_url) * random.uniform(1.0 - RESYNC_SPREAD, 1.0)
        end = Until(run.stop, seconds)
        _follow(settings, run, end, changed=changed, memory=memory)
        if not end.is_set():
            return


def _follow(
    settings: Settings,
    run: Run,
    end: Until,
    *,
    changed: Callable[[], object],
    memory: Memory,
) -> None:
    """One watch, from the list of all that there is."""
    members = peers.Membership(settings.node_name, _own_addresses())
    directory = Directory(settings.node_name)
    agrees = False
    """Whether the tables were as told at the last Synced."""
    for event in open_store(settings.store_url, settings.cluster, create=False).watch(end):
        members.feed(event)
        if not isinstance(event, Synced):
            continue
        _tell_rejections(memory, members.rejected)
        if not _believes(settings, members, memory):
            memory.known.tell(members.nodes)
            continue
        # a setup may be replacing the maps, or this node's place
        with locks.network_lock(settings.run_dir, shared=True):
            written = _write(settings, members, directory, all_nodes=not agrees)
            # under the lock: whoever compares both holds it alone
            memory.known.tell(members.nodes)
        if written.left_out and memory.growth.take("setup") is not None:
            written = _make_room(settings, members, written)
        if not agrees:
            give_back()
        agrees = not written.left_out
        memory.others = tuple(members.others)
        run.well()
        _tell_written(memory, written)
        if written.changed:
            changed()


def _write(
    settings: Settings, members: peers.Membership, directory: Directory, *, all_nodes: bool
) -> peers.Written:
    """Write what the last batch changed, or all nodes."""
    before, after = members.take_changes()
    directory.change(before, [*after, *([members.own] if members.own else [])])
    moved = directory.take_changes()
    if all_nodes:
        written = peers.write(settings.pin_root, members.others, synced=True)
        moves = node_addresses.write(settings.pin_root, directory)
        written = replace(written, changed=written.changed + moves)  # others may have damaged it
    else:
        written = peers.write_changes(settings.pin_root, before, after)
        node_addresses.write_changes(settings.pin_root, moved)
    _write_guard(members.others, changes=None if all_nodes else (before, after))
    return written


def _write_guard(
    others: list[NodeRecord], *, changes: tuple[list[NodeRecord], list[NodeRecord]] | None
) -> None:
    """Never stops the following: what is missing in the guard, its own faults tell."""
    try:
        if changes is None or not overlay_guard.follow_changes(*changes):
            overlay_guard.follow_all(others)
    except SetupError as error:
        log.warning("guard not written error=%s", quoted(error.message))


def _make_room(
    settings: Settings, members: peers.Membership, written: peers.Written
) -> peers.Written:
    """A setup makes maps that hold all nodes there are now, and packets flow meanwhile."""
    log.info("more nodes than the maps hold, setup makes larger ones left_out=%d",
             len(written.left_out))  # fmt: skip
    try:
        provision.setup(settings)
    except (PycniError, LoaderError) as error:
        log.warning("maps not made larger error=%s", quoted(error.message))
        return written
    with locks.network_lock(settings.run_dir, shared=True):
        return peers.write(settings.pin_root, members.others, synced=True)


def _own_addresses() -> frozenset[IPAddress]:
    with Rtnl() as ipr:
        return frozenset(address.ip for address in ipr.addresses())


def _believes(settings: Settings, members: peers.Membership, memory: Memory) -> bool:
    """Whether the store knows this node."""
    if memory.believed and not members.knows_us:
        log.warning("store ignored, it does not know this node; run: pycni setup store=%s node=%s",
                    quoted(settings.store_url), quoted(settings.node_name))  # fmt: skip
    memory.believed = members.knows_us
    return memory.believed


def _tell_rejections(memory: Memory, rejected: dict[str, str]) -> None:
    memory.report.put(SET_ASIDE, dict(sorted(rejected.items())[:TOLD]))
    for name, reason in memory.rejections.take(rejected):
        if reason:
            log.warning("record set aside node=%s reason=%s", quoted(name), quoted(reason))
        else:
            log.info("record no longer set aside node=%s", quoted(name))
    if len(rejected) > peers.NAMES_TOLD and memory.limit.take("many") is not None:
        log.warning("many records are set aside, see: pycni nodes records=%d", len(rejected))


def _tell_written(memory: Memory, written: peers.Written) -> None:
    by_vtep = {node.vtep: node.name for node in memory.others}
    names = sorted(by_vtep.get(vtep, str(vtep)) for vtep in written.left_out)
    memory.report.put(LEFT_OUT, {"count": len(names), "names": names[:TOLD]})
    if names and memory.limit.take("left out") is not None:
        log.warning("more nodes than the maps hold, run: pycni setup nodes=%d left_out=%d first=%s",
                    len(memory.others), len(names), quoted(names[0]))  # fmt: skip
    if written.changed and (silent := memory.news.take("written")) is not None:
        log.info("other nodes written nodes=%d entries_changed=%d%s",
                 len(memory.others), written.changed, mention(silent))  # fmt: skip
