# SPDX-License-Identifier: Apache-2.0
"""Turns what is followed in the Kubernetes API into the events of a source."""

from __future__ import annotations

from collections.abc import Iterator

from pycni.stores.kube import own
from pycni.stores.kube.following import Batch, Phase
from pycni.stores.records import Raw
from pycni.stores.registry import NodeRecord
from pycni.stores.roster import Roster
from pycni.stores.source import Event, Synced


class News:
    """Of one watch. The first list is told as it comes. Of a later one only what differs is kept,
    and told at its end, so that what is removed comes first."""

    def __init__(self, where: str, roster: Roster) -> None:
        self._where = where
        self._roster = roster
        self._was_listed = False
        self._seen: set[str] = set()
        self._different: dict[str, Raw | None] = {}

    def of(self, batch: Batch[Raw]) -> Iterator[Event[NodeRecord]]:
        """The events that a batch makes."""
        match batch.phase:
            case Phase.BEGIN:
                self._seen, self._different = set(), {}
            case Phase.PART:
                yield from self._part(batch.values)
            case Phase.END:
                gone = self._roster.claims.keys() - self._seen
                changed = self._different | dict.fromkeys(gone)
                yield from self._changed(changed)
                self._was_listed = True
                self._seen, self._different = set(), {}
                yield Synced()
            case Phase.CHANGE:
                own.doubt(self._where, batch.values)
                if events := self._roster.change(batch.values):
                    yield from events
                    yield Synced()

    def _part(self, values: dict[str, Raw | None]) -> Iterator[Event[NodeRecord]]:
        self._seen |= {name for name, raw in values.items() if raw is not None}
        if not self._was_listed:
            yield from self._roster.change(values)
            return
        for name, raw in values.items():
            if raw is None or self._roster.read(name, raw) != self._roster.claims.get(name):
                self._different[name] = raw
            else:  # it changed while it was listed
                self._different.pop(name, None)

    def _changed(self, changed: dict[str, Raw | None]) -> Iterator[Event[NodeRecord]]:
        own.doubt(self._where, changed)
        yield from self._roster.change(changed)
