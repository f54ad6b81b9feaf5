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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import NameTaken, PlaceLost, StoreError
from pycni.files import make_private_directory
from pycni.stores import places
from pycni.stores.former import NEW, Former
from pycni.stores.places import Applicant
from pycni.stores.records import Raw, named, printable
from pycni.stores.registry import BY_VXLAN, HEARTBEAT_FRESH, Listing, NodeRecord, Reach, Rival
from pycni.stores.roster import Roster
from pycni.stores.source import Event, Synced
from pycni.stores.sqlite import connection, schema
from pycni.stores.sqlite.rows import (
    Row,
    digest,
    last_instances,
    liveness,
    other_instance,
    raw,
    read_rows,
    remove_name,
    write_instance,
    write_row,
)

POLL_INTERVAL = 0.5
"""Seconds between two looks at `PRAGMA data_version`, which reads a counter in shared memory."""


@dataclass(frozen=True)
class SqliteStore:
    """A `Store` in a file. `clock` gives Unix time in seconds."""

    path: Path
    cluster: Cluster
    clock: Callable[[], float] = time.time
    first_beats: dict[tuple[str, str], float] = field(default_factory=dict, compare=False)
    """When this process first said that a node lives, by name and instance."""

    @classmethod
    def open(cls, path: Path, cluster: Cluster, *, create: bool = True) -> SqliteStore:
        """The store in `path`; with `create`, made with mode 0600 (its directory: 0700) if absent.

        Raises ClusterError, StoreError, FileError.
        """
        if create:
            make_private_directory(path.parent)
        if path.exists() and not path.is_file():  # SQLite would wait for a pipe
            raise StoreError(
                f"the cluster store {path} cannot be used: it is no regular file",
                hint="name a file in store; the first `pycni setup` makes it",
            )
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
        instance: str = "",
        reach: Reach = BY_VXLAN,
        had: Former = NEW,
    ) -> NodeRecord:
        applicant = Applicant(name, vtep, identity, instance, reach, had)
        with connection.connect(self.path, self.cluster) as db:
            try:
                with schema.transaction(db):
                    return self._place(db, applicant)
            except NameTaken:
                if instance:
                    us = Rival(instance, str(vtep))
                    write_instance(db, name, us, now=self.clock(), refused=True)
                raise

    def keeps(self, name: str, had: Former) -> None:
        """The records decide."""

    def heartbeat(self, name: str, *, instance: str = "") -> Rival | None:
        now = self.clock()
        with connection.connect(self.path, self.cluster) as db:
            update = "UPDATE nodes SET heartbeat = ? WHERE name = ?"
            if db.execute(update, (now, name)).rowcount == 0:
                raise self._not_registered(name)
            if not instance:
                return None
            write_instance(db, name, Rival(instance), now=now)
            # before its own first one, another's heartbeat may be that of this machine before a
            # reboot
            since = max(self.first_beats.setdefault((name, instance), now), now - HEARTBEAT_FRESH)
            other = other_instance(db, name, instance, since=since)
        return Rival(*map(printable, other)) if other else None

    def warnings(self) -> list[str]:
        return []

    def publish(self, name: str, prefix: IPNetwork) -> str:
        with connection.connect(self.path, self.cluster) as db, schema.transaction(db):
            roster, _ = self._read(db)
            if owner := places.owner(roster, prefix):
                return owner
            if name not in roster.claims:
                raise self._not_registered(name)
            places.refuse_another_address(roster, name)
            db.execute("INSERT OR REPLACE INTO extras VALUES (?, ?)", (str(prefix), name))
            return name

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        with connection.connect(self.path, self.cluster) as db:
            db.execute("DELETE FROM extras WHERE prefix = ? AND node = ?", (str(prefix), name))

    def blocks(self) -> None:
        """Nodes of this store have their pod CIDRs, and no more."""

    def nodes(self) -> tuple[NodeRecord, ...]:
        return self.listing().nodes

    def listing(self) -> Listing:
        with connection.connect(self.path, self.cluster) as db:
            roster, heartbeats = self._read(db)
            instances = last_instances(db)
        return roster.listing(liveness(heartbeats, now=self.clock(), instances=instances))

    def remove(self, name: str) -> bool:
        with connection.connect(self.path, self.cluster) as db, schema.transaction(db):
            names = (one for (one,) in db.execute("SELECT name FROM nodes"))
            return remove_name(db, named(names, name) or name)

    def watch(self, stop: threading.Event) -> Iterator[Event[NodeRecord]]:
        roster = Roster(self.cluster, keeps_identity=False)
        known: dict[str, bytes] = {}
        """Digests: the rows themselves take as much memory as the roster."""
        version: int | None = None
        with connection.connect(self.path, self.cluster) as db:
            opened = _file_id(self.path)
            while not stop.is_set():
                # Before the list: what is written in between is seen now, and once more next time.
                latest = schema.pragma(db, "data_version")
                if latest != version:
                    changed, known = _changes(known, read_rows(db)[0])
                    events = roster.change(changed)
                    yield from events
                    if events or version is None:
                        yield Synced()
                    version = latest
                stop.wait(POLL_INTERVAL)
                if (now := _file_id(self.path)) != opened:
                    what = "removed" if now is None else "replaced by another file"
                    raise StoreError(
                        f"the cluster store {self.path} was {what} while in use",
                        hint="put it back, or restart the agents of all nodes that share it",
                    )

    def _place(self, db: sqlite3.Connection, applicant: Applicant) -> NodeRecord:
        """Give the applicant its place. The caller holds the transaction."""
        now = self.clock()
        roster, heartbeats = self._read(db)
        alive = liveness(heartbeats, now=now, instances=last_instances(db))
        record = places.place(applicant, roster, liveness=alive)
        write_row(db, record, identity=applicant.identity, heartbeat=now)
        if applicant.instance:
            us = Rival(applicant.instance, str(applicant.vtep))
            write_instance(db, applicant.name, us, now=now)
        return record

    def _read(self, db: sqlite3.Connection) -> tuple[Roster, dict[str, float]]:
        """All records, and the Unix time of each last heartbeat."""
        rows, heartbeats = read_rows(db)
        return Roster(self.cluster, {name: raw(row) for name, row in rows.items()}), heartbeats

    def _not_registered(self, name: str) -> PlaceLost:
        return PlaceLost(
            f"the node {name} is not registered in {self.path}", hint="register it again"
        )


def _changes(
    known: Mapping[str, bytes], rows: Mapping[str, Row]
) -> tuple[dict[str, Raw | None], dict[str, bytes]]:
    """The records that changed since digests of them were taken, and the digests now."""
    digests = {name: digest(row) for name, row in rows.items()}
    changed: dict[str, Raw | None] = dict.fromkeys(known.keys() - rows.keys())
    changed |= {name: raw(row) for name, row in rows.items() if known.get(name) != digests[name]}
    return changed, digests


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
