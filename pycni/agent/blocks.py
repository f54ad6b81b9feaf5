# SPDX-License-Identifier: Apache-2.0
"""Gets this node further blocks of addresses before it needs them, and gives empty ones back.

Only where the store has pools (docs/pools.md). A block is claimed, published, and only then in the
node's record, of which ADD reads it. It goes the other way round, with a rest between the steps: an
ADD may be under way that read the record before.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from pycni import locks
from pycni.agent.known import Known
from pycni.agent.loops import Run
from pycni.backoff import Backoff
from pycni.cluster import IPNetwork
from pycni.dataplane import maps
from pycni.errors import PoolFull, StoreError, TryAgain
from pycni.ipam import growth
from pycni.ipam.growth import Used
from pycni.ipam.pools import ROTATION_FILE
from pycni.kernel.memory import give_back
from pycni.logfmt import quoted
from pycni.node.record import Node
from pycni.node.report import BLOCKS, Report
from pycni.settings import Settings
from pycni.stores import open_store
from pycni.stores.ip_pools import BlockRegistry, Pools

LOOK = 1.0
"""Seconds between two looks whether addresses were given."""
FULL_LOOK = 20.0
"""Seconds between two looks at everything."""
SHORT_LOOK = 2.0
"""The same while the node needs a block and gets none."""
REVIEW = 600.0
"""Seconds between two readings of the store, give or take a fifth by chance."""
EMPTY = 600.0
"""Seconds for which a block must be empty before it goes."""
REST = 60.0
"""Seconds from when no address of a block is given any more until it is published no more: longer
than any ADD takes (cni/plugin.py)."""
FORGOTTEN = 60.0
"""Seconds until other nodes have heard of it, and the claim can go."""
FULL_WAIT = 300.0
"""Seconds, the longest wait of a node that got no block, if the pools do not change."""
POOLS_LOOK = 30.0
"""Seconds between two looks whether they did."""
NEVER = -1

log = logging.getLogger(__name__)


def follow(
    settings: Settings, run: Run, *, report: Report, known: Known, registered: threading.Event
) -> None:
    """Until the agent stops, from when the node is registered. Raises PycniError or OSError."""
    while not (registered.is_set() or run.stopping):
        run.wait(LOOK)
    registry = open_store(settings.store_url, settings.cluster, create=False).blocks()
    if registry is None:
        run.well()
    else:
        tender = Tender(settings, registry, report=report, known=known)
        while not run.stopping:
            tender.look()
            run.well()
            run.wait(LOOK)
    while not run.stopping:
        run.wait(FULL_LOOK)


class Tender:
    """What one agent knows of its blocks. Used by one thread; `clock` gives seconds that only
    grow."""

    def __init__(
        self,
        settings: Settings,
        registry: BlockRegistry,
        *,
        report: Report,
        known: Known,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._report = report
        self._known = known
        self._clock = clock
        self._mark: object = None
        self._look_at = 0.0
        self._review_at = 0.0
        self._heard = NEVER
        """The version of the news of the store that the record agreed with."""
        self._need = _Need(registry, clock)
        self._pools = Pools()
        self._empty: dict[IPNetwork, float] = {}
        """Blocks that could go, and since when."""
        self._resting: dict[IPNetwork, float] = {}
        """Blocks of which no address is given any more, and since when."""
        self._leaving: dict[IPNetwork, float] = {}
        """Blocks that are published no more, and since when."""

    def look(self) -> None:
        """Look, if it is time to, and do what is needed. Raises PycniError or OSError; why the
        store fails is in the report."""
        mark, now = self._rotation(), self._clock()
        if mark == self._mark and now < self._look_at:
            return
        self._mark, self._look_at = mark, now + FULL_LOOK
        try:
            self._tend(now)
        except (StoreError, TryAgain) as error:
            self._tell(problem=error.message, hint=error.hint)
            raise

    def _tend(self, now: float) -> None:
        node = Node.load(self._settings)
        if self._heard == NEVER:  # what is published may be more than the record says
            node = self._agree(node)
        node = self._grow(node)
        if self._heard != self._known.version:
            node = self._follow_news(node)
        self._keep(node.blocks)
        self._shrink(node)
        if self._need.is_unmet:
            self._look_at = now + SHORT_LOOK
        if now >= self._review_at:
            self._review(node)
            self._review_at = now + REVIEW * random.uniform(0.8, 1.2)

    def _rotation(self) -> object:
        """Changes when addresses are given."""
        with suppress(OSError):
            found = (self._settings.state_dir / ROTATION_FILE).stat()
            return found.st_ino, found.st_mtime_ns
        return None

    def _used(self, node: Node) -> Used:
        with maps.open_endpoints(self._settings.pin_root) as table:
            addresses = [address for address, _ in table.items()]
        return growth.count([*node.networks, *self._resting], addresses)

    def _grow(self, node: Node) -> Node:
        used = self._used(node)
        short = growth.short(node.networks, used)
        for version in short:
            back = next((one for one in self._resting if one.version == version), None)
            if back is not None:
                node = self._bring_back(back, node)
            elif (blocks := self._need.meet(node.name, version)) is not None:
                give_back()  # a claim looks at all records
                log.info("block claimed blocks=%s", quoted(" ".join(map(str, blocks))))
                node = self._write(one for one in blocks if one not in self._resting)
        self._need.forget_all_but(short)
        self._tell()
        return node

    def _keep(self, blocks: Iterable[IPNetwork]) -> None:
        """Blocks of which addresses are given do not go, whoever took them up again: a claim that
        the node gets first is one that it has still, and a setup takes what is published."""
        for block in blocks:
            self._resting.pop(block, None)
            self._leaving.pop(block, None)

    def _shrink(self, node: Node) -> None:
        now, used = self._clock(), self._used(node)
        spare = growth.spare(node.pod_cidrs, node.blocks, used)
        self._empty = {block: self._empty.get(block, now) for block in spare}
        for block, since in self._empty.items():
            if now - since >= EMPTY:
                log.info("block is empty, and goes block=%s", quoted(str(block)))
                self._resting[block] = now
                node = self._write(one for one in node.blocks if one != block)
        for block, since in list(self._resting.items()):
            if used.get(block):
                node = self._bring_back(block, node)
            elif now - since >= REST:
                self._registry.unpublish(node.name, block)
                self._leaving[block] = now
                del self._resting[block]
        for block, since in list(self._leaving.items()):
            if now - since >= FORGOTTEN:
                self._registry.release(node.name, block)
                del self._leaving[block]
                log.info("block given back block=%s", quoted(str(block)))

    def _bring_back(self, block: IPNetwork, node: Node) -> Node:
        del self._resting[block]
        return self._write([*node.blocks, block])

    def _review(self, node: Node) -> None:
        pools = self._registry.pools()
        for name, reason in pools.set_aside.items():
            if self._pools.set_aside.get(name) != reason:
                log.warning("pool set aside pool=%s reason=%s", quoted(name), quoted(reason))
        self._pools = pools
        self._registry.tidy(node.name, kept=[*node.blocks, *self._resting, *self._leaving])
        self._tell()

    def _follow_news(self, node: Node) -> Node:
        """Agree with the store, if what it told last is not so here."""
        own = next((one for one in self._known.nodes or () if one.name == node.name), None)
        if own is None or set(own.blocks) == {*node.blocks, *self._resting}:
            self._heard = self._known.version
            return node
        return self._agree(node)

    def _agree(self, node: Node) -> Node:
        """Give addresses of what is published, and of nothing else. What is not any more is
        published again, unless another node has claimed it."""
        heard = self._known.version
        published = self._registry.published(node.name)
        if published is None:  # the heartbeat registers the node again
            return node
        if lost := [block for block in node.blocks if block not in published]:
            published = self._registry.restore(node.name, lost)
        self._heard = heard
        for block in {*node.blocks, *self._resting} - {*published}:
            log.warning("block is this node's no more, drain pods that are in it block=%s",
                        quoted(str(block)))  # fmt: skip
            self._resting.pop(block, None)
        return self._write(one for one in published if one not in self._resting)

    def _write(self, blocks: Iterable[IPNetwork]) -> Node:
        """The node with these blocks, in its record. A setup waits, or is waited for."""
        wanted = tuple(blocks)
        with locks.network_lock(self._settings.run_dir, shared=True):
            node = Node.load(self._settings)
            if node.blocks != wanted:
                node = replace(node, blocks=wanted)
                node.save(self._settings)
        return node

    def _tell(self, **instead: str) -> None:
        told = self._need.told() | instead | {"set_aside": dict(self._pools.set_aside)}
        self._report.put(BLOCKS, told)


class _Need:
    """Claims that a node needs, by IP version: why they failed, and when to try again."""

    def __init__(self, registry: BlockRegistry, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._clock = clock
        self._errors: dict[int, StoreError | TryAgain] = {}
        self._backoffs: dict[int, Backoff] = {}
        self._retry_at: dict[int, float] = {}
        self._pools: Pools | None = None
        """As they were when they were full."""
        self._pools_at = 0.0

    @property
    def is_unmet(self) -> bool:
        return bool(self._errors)

    def meet(self, name: str, version: int) -> tuple[IPNetwork, ...] | None:
        """The blocks that the node has after another try; None if there is none, or not now."""
        if self._clock() < self._retry_at.get(version, 0.0) and not self._pools_changed(version):
            return None
        try:
            blocks = self._registry.grow(name, version)
        except (StoreError, TryAgain) as error:
            self._failed(version, error)
            return None
        self._forget(version)
        return blocks

    def forget_all_but(self, versions: Iterable[int]) -> None:
        """Only these versions need a block."""
        for version in set(self._errors) - set(versions):
            self._forget(version)

    def told(self) -> dict[str, object]:
        """For other processes."""
        errors = [self._errors[version] for version in sorted(self._errors)]
        return {
            "problem": "; ".join(error.message for error in errors),
            "hint": errors[0].hint if errors else "",
            "full": any(isinstance(error, PoolFull) for error in errors),
        }

    def _pools_changed(self, version: int) -> bool:
        """Whether it is worth to try again at once. A store that is away says no."""
        if not isinstance(self._errors.get(version), PoolFull) or self._clock() < self._pools_at:
            return False
        self._pools_at = self._clock() + POOLS_LOOK
        with suppress(StoreError, TryAgain):
            return self._registry.pools() != self._pools
        return False

    def _failed(self, version: int, error: StoreError | TryAgain) -> None:
        known = self._errors.get(version)
        if known is None or known.message != error.message:
            log.warning("no further block ip_version=%d error=%s", version, quoted(error.message))
        self._errors[version] = error
        if isinstance(error, PoolFull):
            self._pools_at = self._clock() + POOLS_LOOK
            with suppress(StoreError, TryAgain):
                self._pools = self._registry.pools()
            delay = random.uniform(FULL_WAIT / 2, FULL_WAIT)
        else:
            delay = self._backoffs.setdefault(version, Backoff()).delay()
        self._retry_at[version] = self._clock() + delay

    def _forget(self, version: int) -> None:
        for known in (self._errors, self._backoffs, self._retry_at):
            known.pop(version, None)
