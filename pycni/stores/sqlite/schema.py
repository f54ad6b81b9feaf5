# SPDX-License-Identifier: Apache-2.0
"""What is in a store's file: its tables, the mark that it is a store, the cluster it belongs to.

Makes files, brings older ones up to date, and refuses others. The rows are rows.py's.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pycni.cluster import Cluster
from pycni.errors import StoreError
from pycni.stores import places

APPLICATION_ID = 0x7079636E
""""pycn": tells stores from other databases."""
SCHEMA_VERSION = 2
BUSY_TIMEOUT = 10.0
"""Seconds to wait for other writers, who hold the lock for milliseconds."""

EXTRAS = """
CREATE TABLE extras (prefix TEXT PRIMARY KEY, node TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""
INSTANCES = """
CREATE TABLE IF NOT EXISTS instances (
    node TEXT NOT NULL,
    instance TEXT NOT NULL,
    vtep TEXT NOT NULL,
    heartbeat REAL NOT NULL,
    refused INTEGER NOT NULL,
    PRIMARY KEY (node, instance)
) STRICT, WITHOUT ROWID;
"""
"""Which machines were alive as a node, or were refused to be. Releases that do not know this table
leave it alone, so it needs no other schema version."""
ADDRESSES = """
CREATE TABLE IF NOT EXISTS addresses
    (node TEXT PRIMARY KEY, vtep TEXT NOT NULL, list TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""
"""A node's own addresses, with spaces between. A table that earlier releases of the same schema
version do not know, and do not mind. A row counts as long as the node has the VTEP that is in it:
they may register or remove a node, and leave the row."""
ACCEPTS = """
CREATE TABLE IF NOT EXISTS accepts
    (node TEXT PRIMARY KEY, list TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS accepts_end AFTER UPDATE OF vtep ON nodes
    BEGIN DELETE FROM accepts WHERE node = old.name; END;
CREATE TRIGGER IF NOT EXISTS accepts_gone AFTER DELETE ON nodes
    BEGIN DELETE FROM accepts WHERE node = old.name; END;
"""
"""What nodes take besides VXLAN, words with spaces between. Also a table that earlier releases do
not know; when one of them registers or removes a node, the file itself removes the row: a node that
goes back to such a release takes no more than that does."""
MIGRATIONS = {1: EXTRAS}
"""By schema version: the statement that makes it the next version."""
SCHEMA = f"""{EXTRAS}{INSTANCES}{ADDRESSES}
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
{ACCEPTS}"""


def create(path: Path, cluster: Cluster) -> None:
    """Make the whole file under another name, then link it into place.

    So nobody ever sees half a store, and of several processes one wins. Raises sqlite3.Error or
    OSError.
    """
    # mkstemp makes the file with mode 0600; SQLite gives its -wal and -shm files the same mode.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        db = sqlite3.connect(temporary, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)
            db.executemany("INSERT INTO cluster VALUES (?, ?)", places.parameters(cluster).items())
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        finally:
            db.close()
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def migrate(path: Path) -> None:
    """Bring an older schema up to date, each step in one transaction; of several processes, one
    does it. Raises sqlite3.Error."""
    db = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT, isolation_level=None
    )
    try:
        while pragma(db, "application_id") == APPLICATION_ID and (
            pragma(db, "user_version") in MIGRATIONS
        ):
            with transaction(db):
                version = pragma(db, "user_version")
                if version in MIGRATIONS:
                    db.execute(MIGRATIONS[version])
                    db.execute(f"PRAGMA user_version = {version + 1}")
        if pragma(db, "application_id") == APPLICATION_ID:
            db.execute(INSTANCES)
            db.execute(ADDRESSES)
            db.executescript(ACCEPTS)
    finally:
        db.close()


def check_file(db: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError unless this is a store, of the schema version that we know."""
    if pragma(db, "application_id") != APPLICATION_ID:
        raise StoreError(
            f"{path} is not a cluster store of pycni",
            hint="name another file in store, or move this one away",
        )
    version = pragma(db, "user_version")
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, this pycni knows {SCHEMA_VERSION}",
            hint="use the same version of pycni on all nodes that share the file",
        )


def check_cluster(db: sqlite3.Connection, path: Path, cluster: Cluster) -> None:
    """Raise ClusterError unless the store belongs to a cluster with these parameters."""
    stored = dict(db.execute("SELECT key, value FROM cluster"))
    places.refuse_other_cluster(stored, cluster, where=str(path))


def pragma(db: sqlite3.Connection, name: str) -> int:
    """The value of one of SQLite's pragmas."""
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Take the write lock at once: a lock asked for later could not wait for other writers."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
