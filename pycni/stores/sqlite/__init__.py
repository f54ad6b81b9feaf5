"""The embedded store: nodes in one SQLite file, for agents that share a file system."""

from __future__ import annotations

from pycni.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
