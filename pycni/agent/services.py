# SPDX-License-Identifier: Apache-2.0
"""Follows Services and EndpointSlices, and writes the maps by which packets to Services find their
endpoints, and the addresses that routers are told of.

Nothing is written before both kinds are listed completely, so nothing is removed that is only not
known yet. If the list goes away, the maps stay as they were written last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pycni import locks
from pycni.agent import announcing, stale_sockets
from pycni.agent.announcing import Announcing
from pycni.agent.current import Current
from pycni.agent.known import Known
from pycni.agent.loops import Run
from pycni.agent.service_maps import ServiceMaps
from pycni.agent.surroundings import Surroundings
from pycni.errors import FileError, NotAvailable, PycniError
from pycni.line_limit import LineLimit, mention
from pycni.logfmt import quoted
from pycni.node import first_services, host_clients
from pycni.node.report import SERVICES, Report
from pycni.services.catalog import Catalog
from pycni.services.objects import Objects, read_one
from pycni.services.table import ServiceTable
from pycni.settings import Settings
from pycni.stores import manifests
from pycni.stores.kube import objects
from pycni.stores.kube.following import Batch, Phase
from pycni.stores.kube.service_lists import KINDS, ServiceLists

LOOK = 0.5
"""Seconds between two looks at a file."""
GRACE = 1.0
"""Seconds after which no packet is on its way any more that has read what was replaced."""
RESYNC = 30.0
"""Seconds after which the maps are read again, and what others changed in them is mended."""
REST = 100.0
"""The same, at least, for each second that it took: 1 % of a processor is enough for it."""
TOLD = 20
"""Objects that the report names."""

News = tuple[str, Batch[Objects]] | None
"""A batch of a kind; None: nothing came."""

log = logging.getLogger(__name__)


def follow(current: Current, run: Run, *, known: Known, report: Report) -> None:
    """Until the agent stops, or nothing of it is in the settings any more. Raises PycniError or
    OSError."""
    while not run.stopping and _is_wanted(settings := current.settings):
        with closing(_followed(settings, run, known, report)) as steps:
            for _ in steps:
                if current.settings is not settings:
                    break


def _is_wanted(settings: Settings) -> bool:
    return settings.services != "off" or settings.announces_services


def _followed(
    settings: Settings, run: Run, known: Known, report: Report
) -> Generator[None, None, None]:
    """One round of lists and what comes after; a step for each news."""
    ask_zone, news = _source(settings, run)
    with Surroundings(settings, known, ask_zone) as around:
        catalog = Catalog(around.place, around.owner, announcing.choice(settings))
        writer = Writer(settings, catalog, report) if settings.services != "off" else None
        announced = Announcing(settings, catalog)
        listed: dict[str, set[str]] = {}
        complete: set[str] = set()
        for one in news:
            if one is not None:
                kind, batch = one
                catalog.change(kind, batch.values)
                if batch.phase is Phase.BEGIN:
                    listed[kind] = set()
                elif batch.phase is Phase.PART:
                    listed[kind] |= batch.values.keys()
                elif batch.phase is Phase.END:
                    catalog.retain(kind, listed.pop(kind))
                    complete.add(kind)
            if complete == set(KINDS.values()):
                is_changed = around.look(catalog) or one is not None
                if writer is None:
                    catalog.changes()
                elif is_changed:
                    writer.write()
                else:
                    writer.look_again()
                announced.turn(changed=is_changed)
                run.well()
            yield


@dataclass
class Writer:
    """Keeps the maps as the catalog says."""

    settings: Settings
    catalog: Catalog
    report: Report
    clock: Callable[[], float] = time.monotonic
    limit: LineLimit = field(default_factory=LineLimit)
    _table: ServiceTable | None = None
    _ids: tuple[int, ...] = ()
    _released_at: float = 0.0
    _read_next: float = 0.0
    _kept: str = ""
    """Why sockets of the node's processes outlive their endpoint."""

    def write(self) -> None:
        """Write what changed. Raises PycniError or OSError; then the maps are read again first."""
        changed = self.catalog.changes()
        with (
            locks.network_lock(self.settings.run_dir, shared=True),
            ServiceMaps(self.settings.pin_root) as maps,
        ):
            table = self._table
            is_read = table is None or self._ids != maps.ids
            began = self.clock()
            if table is None or is_read:
                table, changed = ServiceTable(maps.read(), maps.room), self.catalog.all()
                self._ids = maps.ids
            self._release(table)
            self._table = None
            made = table.plan(changed)
            if is_read:
                now = self.clock()
                self._read_next = now + max(RESYNC, REST * (now - began))
            maps.write(made)
            self._table = table
        if is_read or made.gone:
            self._destroy_stale()
        if is_read:  # so somebody's removal of the file is mended, too
            with suppress(FileError):  # tried again after RESYNC
                first_services.tell(self.settings, self._ids[0])
        if made:
            self._tell_written(len(made.services), len(made.removed))
        self._tell(table)

    def look_again(self) -> None:
        """Nothing came: take back what is free by now, and see whether the maps are as written."""
        if self._table and self._table.has_retired:
            self._release(self._table)
        elif self.clock() >= self._read_next:
            self._table = None
        if self._table is None or self._are_replaced():
            self.write()

    def _destroy_stale(self) -> None:
        """Also what was missed before: a socket may choose an endpoint in the moment it goes."""
        if not host_clients.are_served(self.settings):
            return
        try:
            stale_sockets.destroy(self.settings.pin_root)
            self._kept = ""
        except (NotAvailable, OSError) as error:
            self._kept = str(error) or type(error).__name__

    def _release(self, table: ServiceTable) -> None:
        if (now := self.clock()) - self._released_at >= GRACE:
            self._released_at = now
            table.release()

    def _are_replaced(self) -> bool:
        with (
            locks.network_lock(self.settings.run_dir, shared=True),
            ServiceMaps(self.settings.pin_root) as maps,
        ):
            return maps.ids != self._ids

    def _tell_written(self, services: int, removed: int) -> None:
        if (silent := self.limit.take("written")) is not None:
            log.info("services written frontends=%d entries=%d removed=%d%s",
                     self.catalog.frontends, services, removed, mention(silent))  # fmt: skip

    def _tell(self, table: ServiceTable) -> None:
        aside = self.catalog.set_aside
        left = {f"{key.service} {key.port_name}": why for key, why in table.left_out.items()}
        self.report.put(
            SERVICES,
            {
                "state": self.settings.services,
                "frontends": self.catalog.frontends,
                "left_out": dict(sorted(left.items())[:TOLD]),
                "left_out_count": len(left),
                "set_aside": [f"{one.kind} {one.name}: {one.reason}" for one in aside[:TOLD]],
                "set_aside_count": len(aside),
                "kept_sockets": self._kept,
            },
        )


def _source(settings: Settings, run: Run) -> tuple[Callable[[], str], Iterator[News]]:
    """How this node's zone is asked for, and where its Services come from. Raises PycniError."""
    if settings.services_file is not None:
        return lambda: "", _of_file(settings.services_file, run)
    lists = ServiceLists.open(settings.store_url)
    return lambda: lists.zone(settings.node_name), lists.follow(run.stop, read_one)


def _of_file(path: Path, run: Run) -> Iterator[News]:
    """What a file says, and again when it is another one, or has other bytes. Raises FileError or
    DecodingError as long as nothing could be read; later a file that is wrong is as if it had not
    been written."""
    seen: object = None
    limit = LineLimit()
    while not run.stopping:
        state = _state_of(path)
        if state == seen:
            run.wait(LOOK)
            yield None
            continue
        try:
            documents = list(manifests.read([path]))
        except PycniError as error:
            if seen is None:
                raise
            if limit.take(error.message) is not None:
                log.warning("services file not taken error=%s", quoted(error.message))
            documents = None
        seen = state
        for kind in KINDS.values() if documents is not None else ():
            found = {
                objects.key_of(one): read_one(kind, one)
                for one in documents or ()
                if one.get("kind") == kind
            }
            yield kind, Batch(Phase.BEGIN)
            yield kind, Batch(Phase.PART, dict(found))
            yield kind, Batch(Phase.END)


def _state_of(path: Path) -> object:
    """What changes when the file does."""
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_mtime_ns, found.st_size
