# SPDX-License-Identifier: Apache-2.0
"""The lines of a watch, in batches of what changed.

Source: kubernetes.io/docs, "Efficient detection of changes"; apimachinery, WatchEvent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pycni.errors import StoreError
from pycni.stores.kube import objects
from pycni.stores.kube.body import Lines
from pycni.stores.kube.client import GONE
from pycni.stores.kube.objects import Document

COALESCE = 0.05
"""Seconds in which changes count as one."""
BATCH_MAX = 200
"""Events that are handed on at once."""
INITIAL_END = "k8s.io/initial-events-end"
"""Annotation of the bookmark that ends a streamed list."""
HINT = "nothing to do: it is asked again; if it lasts, look at the API server's log"

T = TypeVar("T")


@dataclass
class Events(Generic[T]):
    """What a watch has told so far. `keep` makes of each object what is kept."""

    lines: Lines
    keep: Callable[[Document], T]
    where: str
    """The server, for messages."""
    version: str = ""
    """The resourceVersion to go on from."""
    expired: bool = False
    """The server has forgotten what came after that version."""
    ended_list: bool = False
    """The batch that was read last ends the list."""
    ended: bool = False
    """There are no more lines."""
    _values: dict[str, T | None] = field(default_factory=dict)

    def batch(self) -> dict[str, T | None]:
        """What changed, by `objects.key_of`; None: deleted. Waits for one event, and a moment for
        more.

        Raises OSError, HTTPException or StoreError.
        """
        self._values, self.ended_list = {}, False
        first = True
        while first or (len(self._values) < BATCH_MAX and self.lines.soon(COALESCE)):
            first = False
            line = self.lines.next()
            if not line:
                self.ended = True
                break
            self._take(line)
            if self.expired or self.ended_list:
                break
        return self._values

    def _take(self, line: bytes) -> None:
        event = objects.decode(line)
        if event is None:
            raise StoreError(f"what {self.where} sends is no watch", hint=HINT)
        kind, document = event.get("type"), objects.fields(event.get("object"))
        if kind == "ERROR":
            self._error(document)
            return
        self.version = objects.version_of(document) or self.version
        if kind == "BOOKMARK":
            notes = objects.fields(objects.metadata(document).get("annotations"))
            self.ended_list = notes.get(INITIAL_END) == "true"
        elif kind in ("ADDED", "MODIFIED", "DELETED") and objects.name_of(document):
            key = objects.key_of(document)
            self._values[key] = None if kind == "DELETED" else self.keep(document)

    def _error(self, status: Document) -> None:
        if status.get("code") == GONE or status.get("reason") in ("Expired", "Gone"):
            self.expired = True
            return
        message = ascii(objects.text(status, "message"))[:200]
        raise StoreError(f"{self.where} ended the watch: {message}", hint=HINT)
