# SPDX-License-Identifier: Apache-2.0
"""The embedded store's two halves: registry and source.

WAL mode, so readers never wait. Each call opens its own connection, checks what file it got, and
closes it: threads share nothing, and a replaced file is noticed. Several processes of one machine
may use the file at a time; SQLite's locks do not hold over network file systems.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import StoreError
from pycni.files import make_private_directory
from pycni.stores import places
from pycni.stores.places import Applicant
from pycni.stores.registry import Listing, NodeRecord
from pycni.stores.roster import Roster
from pycni.stores.source import Event, Synced
from pycni.stores.sqlite import connection, schema
from pycni.stores.sqlite.rows import Row, liveness, raw, read_rows, write_row

POLL_INTERVAL = 0.1
"""Seconds between two looks at `PRAGMA data_version`, which reads a counter in shared memory."""


@dataclass(frozen=True)
class SqliteStore:
    """A `Store` in a file. `clock` gives Unix time in seconds."""

    path: Path
    cluster: Cluster
    clock: Callable[[], float] = time.time

    @classmethod
    def open(cls, path: Path, cluster: Cluster, *, create: bool = True) -> SqliteStore:
        """The store in `path`; with `create`, made with mode 0600 (its directory: 0700) if absent.

        Raises ClusterError, StoreError, FileError.
        """
        if create:
            make_private_directory(path.parent)
        with connection.explained(path):
            if create and not path.exists():
                schema.create(path, cluster)
            if path.exists():
                schema.migrate(path)
        with connection.connect(path, cluster):
            return cls(path, cluster)

    def register(
        self,
        name: str,
        vtep: IPAddress,
        *,
        identity: str,
        addresses: Iterable[IPAddress] = (),
    ) -> NodeRecord:
        with connection.connect(self.path, self.cluster) as db, schema.transaction(db):
            roster, heartbeats = self._read(db)
            alive = liveness(heartbeats, now=self.clock())
            applicant = Applicant(name, vtep, identity, tuple(addresses))
            record = places.place(applicant, roster, liveness=alive)
            write_row(db, record, identity=identity, heartbeat=self.clock())
            return record

    def heartbeat(self, name: str) -> None:
        with connection.connect(self.path, self.cluster) as db:
            update = "UPDATE nodes SET heartbeat = ? WHERE name = ?"
            if db.execute(update, (self.clock(), name)).rowcount == 0:
                raise self._not_registered(name)

    def publish(self, name: str, prefix: IPNetwork) -> str:
        with connection.connect(self.path, self.cluster) as db, schema.transaction(db):
            roster, _ = self._read(db)
            if owner := places.owner(roster, prefix):
                return owner
            if name not in roster.claims:
                raise self._not_registered(name)
            db.execute("INSERT OR REPLACE INTO extras VALUES (?, ?)", (str(prefix), name))
            return name

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        with connection.connect(self.path, self.cluster) as db:
            db.execute("DELETE FROM extras WHERE prefix = ? AND node = ?", (str(prefix), name))

    def nodes(self) -> tuple[NodeRecord, ...]:
        return self.listing().nodes

    def listing(self) -> Listing:
        with connection.connect(self.path, self.cluster) as db:
            roster, heartbeats = self._read(db)
        return roster.listing(liveness(heartbeats, now=self.clock()))

    def remove(self, name: str) -> bool:
        with connection.connect(self.path, self.cluster) as db, schema.transaction(db):
            db.execute("DELETE FROM extras WHERE node = ?", (name,))
            db.execute("DELETE FROM addresses WHERE node = ?", (name,))
            return db.execute("DELETE FROM nodes WHERE name = ?", (name,)).rowcount > 0

    def watch(self, stop: threading.Event) -> Iterator[Event[NodeRecord]]:
        roster = Roster(self.cluster)
        known: dict[str, Row] = {}
        version: int | None = None
        with connection.connect(self.path, self.cluster) as db:
            opened = _file_id(self.path)
            while not stop.is_set():
                # Before the list: what is written in between is seen now, and once more next time.
                latest = schema.pragma(db, "data_version")
                if latest != version:
                    rows, _ = read_rows(db)
                    changed = {
                        name: raw(row) for name, row in rows.items() if known.get(name) != row
                    }
                    events = roster.change(changed | dict.fromkeys(known.keys() - rows.keys()))
                    yield from events
                    if events or version is None:
                        yield Synced()
                    known, version = rows, latest
                stop.wait(POLL_INTERVAL)
                if _file_id(self.path) != opened:
                    raise StoreError(
                        f"the cluster store {self.path} was removed or replaced while in use",
                        hint="put it back, or restart the agents of all nodes that share it",
                    )

    def _read(self, db: sqlite3.Connection) -> tuple[Roster, dict[str, float]]:
        """All records, and the Unix time of each last heartbeat."""
        rows, heartbeats = read_rows(db)
        return Roster(self.cluster, {name: raw(row) for name, row in rows.items()}), heartbeats

    def _not_registered(self, name: str) -> StoreError:
        return StoreError(
            f"the node {name} is not registered in {self.path}", hint="register it again"
        )


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
