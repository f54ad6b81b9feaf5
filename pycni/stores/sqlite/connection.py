# SPDX-License-Identifier: Apache-2.0
"""Connections to the store's file, and SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pycni.cluster import Cluster
from pycni.errors import StoreError, TryAgain
from pycni.stores.sqlite import schema

OPEN_MODE = "rw"
"""Never "rwc": only schema.py makes the file."""


@contextmanager
def connect(path: Path, cluster: Cluster) -> Iterator[sqlite3.Connection]:
    """A connection to a file that is a store of this cluster, closed at the end.

    In autocommit mode. Used by one thread at a time, though another may close it. Raises
    StoreError, ClusterError, or TryAgain when other writers do not end.
    """
    with explained(path):
        db = sqlite3.connect(
            f"{path.as_uri()}?mode={OPEN_MODE}",
            uri=True,
            timeout=schema.BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        db.text_factory = text
        try:
            schema.check_file(db, path)
            schema.check_cluster(db, path, cluster)
            # Enough in WAL mode for consistency; a power cut may lose the last registrations,
            # but then the machine lost its pods as well.
            db.execute("PRAGMA synchronous = NORMAL")
            yield db
        finally:
            db.close()


def text(raw: bytes) -> str:
    """A TEXT value. SQLite does not check that it is UTF-8: other bytes become surrogates (PEP
    383), so that the record with them is set aside, and no other, and can be named."""
    return raw.decode(errors="surrogateescape")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the system into ours, by their codes: TryAgain, StoreError."""
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
        if not path.exists():
            raise StoreError(
                f"there is no cluster store {path}: {error}",
                hint="if there was one, restore it from a copy; in a new cluster the first `pycni "
                "setup` makes it, on a host that is no node yet",
            ) from error
        raise StoreError(
            f"the cluster store {path} cannot be used: {error}", hint=HINTS.get(code, DEFAULT_HINT)
        ) from error
    except OSError as error:
        raise StoreError(
            f"the cluster store {path} cannot be made: {error.strerror}", hint=DEFAULT_HINT
        ) from error


DEFAULT_HINT = (
    "check that the directory has free space, is writable by root and not mounted read-only"
)
DAMAGED_HINT = "restore it from a copy; or tear all nodes down, remove it, and set them up again"
HINTS = {
    sqlite3.SQLITE_READONLY: "the file and its directory must be writable for root: check its "
    "mode, and that the file system is not mounted read-only",
    sqlite3.SQLITE_CORRUPT: DAMAGED_HINT,
    sqlite3.SQLITE_NOTADB: DAMAGED_HINT,
}
