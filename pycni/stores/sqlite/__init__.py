"""The embedded store: nodes in one SQLite file, for agents that share a file system.

WAL mode, so readers never wait. Each call opens its own connection, checks what file it got, and
closes it: threads share nothing, and a replaced file is noticed. Several processes of one machine
may use the file at a time; SQLite's locks do not hold over network file systems.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import StoreError, TryAgain
from pycni.files import make_private_directory
from pycni.stores import (
    HEARTBEAT_FRESH,
    Event,
    NodeRecord,
    Put,
    Removed,
    Synced,
    places,
)
from pycni.stores.sqlite import schema

POLL_INTERVAL = 0.05
"""Seconds between two looks at `PRAGMA data_version`, which reads a counter in shared memory."""
OPEN_MODE = "rw"
"""Never "rwc": only `open` makes the file."""

SELECT_NODES = """
SELECT name, node_id, vtep, pod_cidr4, pod_cidr6,
    (SELECT group_concat(prefix, ' ') FROM
        (SELECT prefix FROM extras WHERE node = name ORDER BY prefix)),
    heartbeat FROM nodes
"""

Row = tuple[Any, ...]


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
        if create and not path.exists():
            with _explained(path):
                schema.create(path, cluster)
        if path.exists():
            with _explained(path):
                schema.migrate(path)
        store = cls(path, cluster)
        with store._connect():
            return store

    def register(self, name: str, vtep: IPAddress, *, identity: str) -> NodeRecord:
        with self._connect() as db, schema.transaction(db):
            self._check_conflicts(db, name, vtep, identity)
            record = places.place(_records(db), self.cluster, name, vtep)
            cidrs = {cidr.version: str(cidr) for cidr in record.pod_cidrs}
            db.execute(
                "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "vtep = excluded.vtep, identity = excluded.identity, "
                "heartbeat = excluded.heartbeat",
                (name, record.node_id, str(vtep), cidrs.get(4), cidrs.get(6), identity,
                 self.clock()),
            )  # fmt: skip
            return _record(db.execute(f"{SELECT_NODES} WHERE name = ?", (name,)).fetchone())

    def heartbeat(self, name: str) -> None:
        with self._connect() as db:
            changed = db.execute(
                "UPDATE nodes SET heartbeat = ? WHERE name = ?", (self.clock(), name)
            )
            if changed.rowcount == 0:
                raise StoreError(
                    f"the node {name} is not registered in {self.path}", hint="register it again"
                )

    def publish(self, name: str, prefix: IPNetwork) -> str:
        with self._connect() as db, schema.transaction(db):
            owner = places.owner(_records(db), prefix)
            if owner:
                return owner
            if not db.execute("SELECT 1 FROM nodes WHERE name = ?", (name,)).fetchone():
                raise StoreError(
                    f"the node {name} is not registered in {self.path}", hint="register it again"
                )
            db.execute("INSERT INTO extras VALUES (?, ?)", (str(prefix), name))
            return name

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        with self._connect() as db:
            db.execute("DELETE FROM extras WHERE prefix = ? AND node = ?", (str(prefix), name))

    def nodes(self) -> tuple[NodeRecord, ...]:
        with self._connect() as db:
            return _records(db)

    def remove(self, name: str) -> bool:
        with self._connect() as db, schema.transaction(db):
            db.execute("DELETE FROM extras WHERE node = ?", (name,))
            return db.execute("DELETE FROM nodes WHERE name = ?", (name,)).rowcount > 0

    def watch(self, stop: threading.Event) -> Iterator[Event]:
        known: dict[str, Row] = {}
        version: int | None = None
        with self._connect() as db:
            opened = _file_id(self.path)
            while not stop.is_set():
                # Before the list: what is written in between is seen now, and once more next time.
                latest = schema.pragma(db, "data_version")
                if latest != version:
                    rows = {row[0]: row for row in _list(db)}
                    changes = list(_changes(known, rows))
                    yield from changes
                    if changes or version is None:
                        yield Synced()
                    known, version = rows, latest
                stop.wait(POLL_INTERVAL)
                if _file_id(self.path) != opened:
                    raise StoreError(
                        f"the cluster store {self.path} was removed or replaced while in use",
                        hint="put it back, or restart the agents of all nodes that share it",
                    )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        with _explained(self.path):
            # Autocommit; used by one thread at a time, though a watch may be closed by another.
            db = sqlite3.connect(
                f"{self.path.as_uri()}?mode={OPEN_MODE}",
                uri=True,
                timeout=schema.BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                schema.check_file(db, self.path)
                schema.check_cluster(db, self.path, self.cluster)
                # Enough in WAL mode for consistency; a power cut may lose the last registrations,
                # but then the machine lost its pods as well.
                db.execute("PRAGMA synchronous = NORMAL")
                yield db
            finally:
                db.close()

    def _check_conflicts(
        self, db: sqlite3.Connection, name: str, vtep: IPAddress, identity: str
    ) -> None:
        same_name = db.execute(
            "SELECT heartbeat, vtep FROM nodes WHERE name = ? AND identity != ?", (name, identity)
        ).fetchone()
        if same_name is not None and self.clock() - same_name[0] < HEARTBEAT_FRESH:
            raise StoreError(
                f"the node name {name} is in use by another machine with VTEP {same_name[1]}, "
                f"alive {self.clock() - same_name[0]:.0f} s ago",
                hint="give this machine its own node_name; if it replaces the other one, stop that "
                f"and try again in {HEARTBEAT_FRESH:.0f} s",
            )
        same_vtep = db.execute(
            "SELECT name, heartbeat FROM nodes WHERE vtep = ? AND name != ?", (str(vtep), name)
        ).fetchone()
        if same_vtep is not None:
            raise StoreError(
                f"the VTEP {vtep} of node {name} is already that of node {same_vtep[0]}, "
                f"alive {self.clock() - same_vtep[1]:.0f} s ago",
                hint=f"set another vtep, or remove node {same_vtep[0]} if it is gone",
            )


def _list(db: sqlite3.Connection) -> list[Row]:
    return db.execute(f"{SELECT_NODES} ORDER BY name").fetchall()


def _records(db: sqlite3.Connection) -> tuple[NodeRecord, ...]:
    return tuple(map(_record, _list(db)))


def _record(row: Row) -> NodeRecord:
    name, node_id, vtep, cidr4, cidr6, extra, heartbeat = row
    return NodeRecord(
        name=name,
        node_id=node_id,
        vtep=ip_address(vtep),
        pod_cidrs=tuple(ip_network(cidr) for cidr in (cidr4, cidr6) if cidr is not None),
        heartbeat=heartbeat,
        extra=tuple(ip_network(prefix) for prefix in (extra or "").split()),
    )


def _changes(known: dict[str, Row], rows: dict[str, Row]) -> Iterator[Event]:
    for name in known.keys() - rows.keys():
        yield Removed(name)
    for name, row in rows.items():
        # The last column is the heartbeat.
        if name not in known or known[name][:-1] != row[:-1]:
            yield Put(_record(row))


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns SQLite's and the system's errors into ours, by code."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the primary code: https://www.sqlite.org/rescode.html, section 2.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise TryAgain(
                f"the cluster store {path} is busy: other agents are writing to it",
                details=f"waited {schema.BUSY_TIMEOUT:g} s",
                hint="try again; if it stays so, look for a stopped process that has it open",
            ) from error
        raise StoreError(
            f"the cluster store {path} cannot be used: {error}", hint=HINTS.get(code, DEFAULT_HINT)
        ) from error
    except OSError as error:
        raise StoreError(
            f"the cluster store {path} cannot be made: {error.strerror}", hint=DEFAULT_HINT
        ) from error


DEFAULT_HINT = (
    "check that `pycni setup` has run, and that the directory has free space, is writable by root "
    "and not mounted read-only"
)
DAMAGED_HINT = "restore it from a copy; or tear all nodes down, remove it, and set them up again"
HINTS = {
    sqlite3.SQLITE_READONLY: "the file and its directory must be writable for root: check its "
    "mode, and that the file system is not mounted read-only",
    sqlite3.SQLITE_CORRUPT: DAMAGED_HINT,
    sqlite3.SQLITE_NOTADB: DAMAGED_HINT,
}
