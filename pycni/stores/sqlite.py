"""The embedded store: nodes in one SQLite file, for agents that share a file system.

WAL mode, so readers never wait. Each call opens its own connection, checks what file it got, and
closes it: threads share nothing, and a replaced file is noticed. Several processes of one machine
may use the file at a time; SQLite's locks do not hold over network file systems.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from pycni.cluster import Cluster, IPAddress, IPNetwork, node_capacity
from pycni.errors import ClusterError, StoreError, TryAgain
from pycni.files import make_private_directory
from pycni.stores import HEARTBEAT_FRESH, Event, NodeRecord, Put, Removed, Synced

APPLICATION_ID = 0x7079636E
""""pycn": tells our files from other people's databases."""
SCHEMA_VERSION = 1
BUSY_TIMEOUT = 10.0
"""Seconds to wait for other writers, who hold the lock for milliseconds."""
POLL_INTERVAL = 0.2
"""Seconds between two looks at `PRAGMA data_version`, which reads a counter in shared memory."""
OPEN_MODE = "rw"
"""Never "rwc": only `open` makes the file."""

SCHEMA = """
CREATE TABLE cluster (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE nodes (
    name TEXT PRIMARY KEY,
    node_id INTEGER NOT NULL UNIQUE,
    vtep TEXT NOT NULL UNIQUE,
    pod_cidr4 TEXT UNIQUE,
    pod_cidr6 TEXT UNIQUE,
    identity TEXT NOT NULL,
    heartbeat REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""
SELECT_NODES = "SELECT name, node_id, vtep, pod_cidr4, pod_cidr6, heartbeat FROM nodes"

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
                _create(path, cluster)
        store = cls(path, cluster)
        with store._connect():
            return store

    def register(self, name: str, vtep: IPAddress, *, identity: str) -> NodeRecord:
        with self._connect() as db, _transaction(db):
            self._check_conflicts(db, name, vtep, identity)
            changed = db.execute(
                "UPDATE nodes SET vtep = ?, identity = ?, heartbeat = ? WHERE name = ?",
                (str(vtep), identity, self.clock(), name),
            )
            if changed.rowcount == 0:
                cidr4, cidr6 = (_first_free_cidr(db, self.cluster, version) for version in (4, 6))
                db.execute(
                    "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (name, _first_free_id(db), str(vtep), cidr4, cidr6, identity, self.clock()),
                )
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

    def nodes(self) -> tuple[NodeRecord, ...]:
        with self._connect() as db:
            return tuple(map(_record, _list(db)))

    def remove(self, name: str) -> bool:
        with self._connect() as db:
            return db.execute("DELETE FROM nodes WHERE name = ?", (name,)).rowcount > 0

    def watch(self, stop: threading.Event) -> Iterator[Event]:
        known: dict[str, Row] = {}
        version: int | None = None
        with self._connect() as db:
            opened = _file_id(self.path)
            while not stop.is_set():
                # Before the list: what is written in between is seen now, and once more next time.
                latest = _pragma(db, "data_version")
                if latest != version:
                    rows = {row[0]: row for row in _list(db)}
                    yield from _changes(known, rows)
                    if version is None:
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
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                _check_file(db, self.path)
                _check_cluster(db, self.path, self.cluster)
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


def _create(path: Path, cluster: Cluster) -> None:
    """Makes the whole file aside, then links it into place: nobody ever sees half a store, and of
    several processes one wins."""
    # mkstemp makes the file with mode 0600; SQLite gives its -wal and -shm files the same mode.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        db = sqlite3.connect(temporary, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)
            db.executemany("INSERT INTO cluster VALUES (?, ?)", _parameters(cluster).items())
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        finally:
            db.close()
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _check_file(db: sqlite3.Connection, path: Path) -> None:
    if _pragma(db, "application_id") != APPLICATION_ID:
        raise StoreError(
            f"{path} is not a cluster store of pycni",
            hint="name another file in store, or move this one away",
        )
    version = _pragma(db, "user_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, this pycni knows {SCHEMA_VERSION}",
            hint="use the same version of pycni on all nodes that share the file",
        )


def _check_cluster(db: sqlite3.Connection, path: Path, cluster: Cluster) -> None:
    stored = dict(db.execute("SELECT key, value FROM cluster"))
    wanted = _parameters(cluster)
    differences = [
        f"{key} is {stored.get(key, 'absent')} in the store and {wanted.get(key, 'absent')} here"
        for key in sorted(stored.keys() | wanted.keys())
        if stored.get(key) != wanted.get(key)
    ]
    if differences:
        raise ClusterError(
            f"{path} belongs to a cluster with other parameters: {'; '.join(differences)}",
            hint="give this node the store's parameters; to change them for the whole cluster, "
            "tear all nodes down and remove the file",
        )


def _parameters(cluster: Cluster) -> dict[str, str]:
    parameters = {"vni": str(cluster.vni), "port": str(cluster.port)}
    for cidr in cluster.cidrs:
        parameters[f"cluster_cidr.ipv{cidr.version}"] = str(cidr)
        parameters[f"node_prefix.ipv{cidr.version}"] = str(cluster.node_prefix(cidr.version))
    return parameters


def _first_free_cidr(db: sqlite3.Connection, cluster: Cluster, version: int) -> str | None:
    cidr = next((cidr for cidr in cluster.cidrs if cidr.version == version), None)
    if cidr is None:
        return None
    column = f"pod_cidr{version}"
    taken = {row[0] for row in db.execute(f"SELECT {column} FROM nodes")}
    prefix = cluster.node_prefix(version)
    capacity = node_capacity(cidr, prefix)
    if len(taken) >= capacity:
        raise StoreError(
            f"no free pod CIDR: {cidr} cut into /{prefix} is enough for {capacity} nodes, "
            f"and there are {len(taken)}",
            hint="remove nodes that are gone, or build the cluster with larger cluster_cidrs",
        )
    candidates = (str(_subnet(cidr, prefix, index)) for index in range(len(taken) + 1))
    return next(candidate for candidate in candidates if candidate not in taken)


def _subnet(cidr: IPNetwork, prefix: int, index: int) -> IPNetwork:
    size = 1 << (cidr.max_prefixlen - prefix)
    return ip_network((cidr.network_address + index * size, prefix))


def _first_free_id(db: sqlite3.Connection) -> int:
    taken = {row[0] for row in db.execute("SELECT node_id FROM nodes")}
    return next(number for number in range(1, len(taken) + 2) if number not in taken)


def _list(db: sqlite3.Connection) -> list[Row]:
    return db.execute(f"{SELECT_NODES} ORDER BY name").fetchall()


def _record(row: Row) -> NodeRecord:
    name, node_id, vtep, cidr4, cidr6, heartbeat = row
    return NodeRecord(
        name=name,
        node_id=node_id,
        vtep=ip_address(vtep),
        pod_cidrs=tuple(ip_network(cidr) for cidr in (cidr4, cidr6) if cidr is not None),
        heartbeat=heartbeat,
    )


def _changes(known: dict[str, Row], rows: dict[str, Row]) -> Iterator[Event]:
    for name in known.keys() - rows.keys():
        yield Removed(name)
    for name, row in rows.items():
        # The last column is the heartbeat.
        if name not in known or known[name][:-1] != row[:-1]:
            yield Put(_record(row))


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Takes the write lock at once: a lock asked for later could not wait for other writers."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


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
                details=f"waited {BUSY_TIMEOUT:g} s",
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
