# SPDX-License-Identifier: Apache-2.0
"""What a fake Kubernetes API server stores: objects, their versions, and the history of changes."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]
Key = tuple[str, str]
"""Path of the collection, and name."""


@dataclass(frozen=True)
class Change:
    version: int
    kind: str
    """ADDED, MODIFIED or DELETED."""
    path: str
    document: Document


@dataclass
class Objects:
    """As etcd behind the API server: one counter for all. `clock` gives Unix time."""

    clock: Callable[[], float]
    changed: threading.Condition = field(default_factory=threading.Condition)  # of an RLock
    version: int = 1
    forgotten: int = 0
    """Changes up to this version are no longer known."""
    history: list[Change] = field(default_factory=list)
    found: dict[Key, Document] = field(default_factory=dict)
    applied: dict[Key, Document] = field(default_factory=dict)
    """The fields of each object that were applied last."""
    on_delete: Callable[[str, str], None] = lambda _path, _name: None

    def get(self, path: str, name: str) -> Document | None:
        with self.changed:
            return copy.deepcopy(self.found.get((path, name)))

    def list(self, path: str) -> list[Document]:
        with self.changed:
            keys = sorted(key for key in self.found if key[0] == path)
            return [copy.deepcopy(self.found[key]) for key in keys]

    def put(self, path: str, name: str, document: Document) -> Document:
        """Write an object past all rules; metadata that is not given stays."""
        with self.changed:
            before = self.found.get((path, name))
            document = copy.deepcopy(document)
            old = before["metadata"] if before else {}
            self.version += 1
            head = {
                "uid": str(uuid.uuid4()),
                "creationTimestamp": f"{datetime.fromtimestamp(self.clock(), UTC):%FT%TZ}",
                **old,
                **document.get("metadata", {}),
                "name": name,
                "resourceVersion": str(self.version),
            }
            document["metadata"] = {key: value for key, value in head.items() if value is not None}
            self.found[path, name] = document
            self._record("MODIFIED" if before else "ADDED", path, document)
            return copy.deepcopy(document)

    def apply(self, path: str, name: str, document: Document) -> Document | None:
        """Server-side apply by one manager; None for a resourceVersion that is not the current, and
        for a UID of an object that is gone, which a resourceVersion alone brings back."""
        with self.changed:
            before = self.found.get((path, name))
            for key in ("resourceVersion", "uid"):
                wanted = document["metadata"].pop(key, None)
                if before is None and wanted is not None and key == "uid":
                    return None
                if before is not None and wanted not in (None, before["metadata"][key]):
                    return None
            former = self.applied.get((path, name), {})
            self.applied[path, name] = copy.deepcopy(document)
            if before is None:
                return self.put(path, name, document)
            merged = _applied(before, document, former)
            if merged == before:
                return copy.deepcopy(before)
            return self.put(path, name, merged)

    def merge(self, path: str, name: str, patch: Document) -> Document | None:
        with self.changed:
            before = self.found.get((path, name))
            return None if before is None else self.put(path, name, _merged(before, patch))

    def delete(self, path: str, name: str) -> None:
        with self.changed:
            document = self.found.pop((path, name))
            self.applied.pop((path, name), None)
            self.version += 1
            document["metadata"]["resourceVersion"] = str(self.version)
            self._record("DELETED", path, document)
        self.on_delete(path, name)

    def bookmark(self, path: str) -> None:
        """Tell watches of the current version."""
        with self.changed:
            self.version += 1
            head = {"resourceVersion": str(self.version)}
            self._record("BOOKMARK", path, {"metadata": head})

    def forget(self) -> None:
        """Compact the history: who resumes from before gets 410."""
        with self.changed:
            self.version += 1
            self.forgotten = self.version
            self.history.clear()
            self.changed.notify_all()

    def _record(self, kind: str, path: str, document: Document) -> None:
        self.history.append(Change(self.version, kind, path, copy.deepcopy(document)))
        self.changed.notify_all()


def _applied(before: Document, now: Document, former: Document) -> Document:
    """`before` with the fields of `now`, and without those that only `former` had."""
    found = copy.deepcopy(before)
    for key in former.keys() - now.keys():
        found.pop(key, None)
    for key, value in now.items():
        if isinstance(value, dict) and isinstance(found.get(key), dict):
            old = former.get(key)
            found[key] = _applied(found[key], value, old if isinstance(old, dict) else {})
        else:
            found[key] = copy.deepcopy(value)
    return found


def _merged(before: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found
