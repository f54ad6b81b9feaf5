# SPDX-License-Identifier: Apache-2.0
"""Follows all objects of a kind: a list, then each change, over any number of connections.

The list and the changes come in one stream where the server can do that ("streaming lists",
KEP-3157), else as pages and a watch. A watch that ends goes on from the last version that was seen.
If the server has forgotten that version (410), all is listed anew. After the first list nothing is
raised: whoever follows keeps what it has, and we try again, after a random time that grows.
"""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

from pycni.backoff import Backoff
from pycni.errors import PycniError, StoreError, TryAgain
from pycni.logfmt import quoted
from pycni.stores.interrupt import ended_by
from pycni.stores.kube import objects
from pycni.stores.kube.body import Lines
from pycni.stores.kube.client import BUSY, GONE, OK, Client, Outcome, jittered, target
from pycni.stores.kube.connection import Answer, Request
from pycni.stores.kube.events import HINT, Events
from pycni.stores.kube.objects import Document
from pycni.stores.kube.pages import pages

WATCH_SECONDS = (300, 600)
"""How long a watch lasts, by chance: not all shall end at once, nor stay with one server."""
SILENCE = 30.0
"""Seconds for which a watch may last longer than it was asked to."""
LIST_SILENCE = 15.0
"""Seconds without an event before the end of a streamed list; then it is asked for in pages."""
NO_STREAM = 3600.0
"""Seconds for which a server that cannot stream lists is not asked for one again."""
BASE, CAP = 1.0, 30.0
"""Seconds: bounds of the wait after a failure (backoff.py)."""
HEALTHY = 120.0
"""Seconds after which a failure is a new one."""
BUSY_MAX = 60.0
"""Seconds that a server may ask for before its first list."""
CANNOT_STREAM = (http.client.BAD_REQUEST, http.client.UNPROCESSABLE_ENTITY)
"""Answers of a server that does not know `sendInitialEvents`, or has it switched off."""

log = logging.getLogger(__name__)

T = TypeVar("T")

_no_stream_until: dict[tuple[tuple[str, int], ...], float] = {}


class Phase(Enum):
    """What a batch is a part of."""

    BEGIN = auto()
    """A list begins."""
    PART = auto()
    """Some of the list."""
    END = auto()
    """The list is complete: what was not in it does not exist."""
    CHANGE = auto()
    """What changed after the list."""


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Objects by `objects.key_of`; None: deleted."""

    phase: Phase
    values: dict[str, T | None] = field(default_factory=dict)


class Busy(Exception):
    """The server asks to wait so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it is busy and asks to wait {seconds:g} s")
        self.seconds = seconds


def _as_pycni(error: PycniError | Busy) -> PycniError:
    if isinstance(error, PycniError):
        return error
    return TryAgain(f"the list cannot be had: {error}", hint=HINT)


class Following(Generic[T]):
    """Of all objects at `path`, or those with labels of a selector. `keep` makes of each what is
    kept."""

    def __init__(
        self, client: Client, path: str, keep: Callable[[Document], T], *, selector: str = ""
    ) -> None:
        self._client = client
        self._path = path
        self._keep = keep
        self._only = {"labelSelector": selector} if selector else {}
        self._version = ""
        """The last that was seen; empty: all is to be listed."""
        self._was_listed = False
        self._listed_at = 0.0
        self._failing = False

    def batches(self, stop: threading.Event) -> Iterator[Batch[T]]:
        """BEGIN, PART..., END, then CHANGE or a list anew, until `stop` is set. Raises PycniError
        before the first END."""
        backoff = Backoff(base=BASE, cap=CAP)
        while not stop.is_set():
            began = time.monotonic()
            try:
                yield from self._round(stop)
                continue
            except (PycniError, Busy) as error:
                if stop.is_set():
                    return
                if not self._was_listed:
                    if isinstance(error, Busy):
                        stop.wait(min(jittered(error.seconds), BUSY_MAX))
                    raise _as_pycni(error) from error
                if time.monotonic() - began > HEALTHY:
                    backoff.reset()
                self._wait(error, backoff, stop)

    def _wait(self, error: Exception, backoff: Backoff, stop: threading.Event) -> None:
        delay = backoff.delay()
        if isinstance(error, Busy):
            delay = max(delay, jittered(error.seconds))
        if not self._failing:
            problem = error.message if isinstance(error, PycniError) else str(error)
            log.warning("watch failed path=%s error=%s again_in_s=%.1f", quoted(self._path),
                        quoted(problem), delay)  # fmt: skip
        self._failing = True
        stop.wait(delay)

    def _is_well(self) -> None:
        if self._failing:
            log.info("watch is back path=%s", quoted(self._path))
        self._failing = False

    def _round(self, stop: threading.Event) -> Iterator[Batch[T]]:
        """One connection, or one list in pages."""
        if self._version:
            yield from self._stream(stop, lists=False)
        elif time.monotonic() >= _no_stream_until.get(self._client.access.servers, 0.0):
            yield from self._stream(stop, lists=True)
        else:
            yield from self._list()

    def _list(self) -> Iterator[Batch[T]]:
        yield Batch(Phase.BEGIN)
        version = ""
        for page in pages(self._client, self._path, **self._only):
            version = page.version
            yield Batch(Phase.PART, {objects.key_of(one): self._keep(one) for one in page.items})
        yield self._ended_list(version)

    def _ended_list(self, version: str) -> Batch[T]:
        self._version = version
        self._was_listed = True
        self._listed_at = time.monotonic()
        self._is_well()
        return Batch(Phase.END)

    def _stream(self, stop: threading.Event, *, lists: bool) -> Iterator[Batch[T]]:
        seconds = random.randint(*WATCH_SECONDS)
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        query |= self._only
        if lists:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        else:
            query["resourceVersion"] = self._version
        silence = LIST_SILENCE if lists else seconds + SILENCE
        request = Request("GET", target(self._path, **query), timeout=silence)
        with self._client.answered(request) as answer:
            if answer.status != OK:
                self._refused(answer, request, lists=lists)
                return
            events = Events(Lines(answer.body), self._keep, self._client.where, self._version)
            with ended_by(stop, answer.connection):
                if lists and not (yield from self._streamed_list(events)):
                    return
                answer.connection.settimeout(seconds + SILENCE)
                yield from self._changes(events, stop)

    def _streamed_list(self, events: Events[T]) -> Generator[Batch[T], None, bool]:
        """Whether the list has an end. A server, or something before it, may not know how."""
        yield Batch(Phase.BEGIN)
        try:
            while not events.ended_list:
                values = events.batch()
                if events.ended or events.expired:
                    raise StoreError(f"{self._client.where} ended the list early", hint=HINT)
                yield Batch(Phase.PART, values)
        except TimeoutError:
            self._stream_no_lists(f"no event, and no end of the list, for {LIST_SILENCE:g} s")
            return False
        yield self._ended_list(events.version)
        return True

    def _changes(self, events: Events[T], stop: threading.Event) -> Iterator[Batch[T]]:
        """Until the watch ends, which is no error."""
        began, before = time.monotonic(), events.version
        while not (stop.is_set() or events.ended or events.expired):
            values = events.batch()
            self._version = events.version
            self._is_well()
            if values:
                yield Batch(Phase.CHANGE, values)
            del values  # the next may be a long time coming
        if events.expired:
            self._forget()
            return
        was_silent = before == events.version
        if was_silent and not stop.is_set() and time.monotonic() - began < BASE:
            raise StoreError(f"{self._client.where} ended the watch at once", hint=HINT)

    def _refused(self, answer: Answer, request: Request, *, lists: bool) -> None:
        """Take a refusal for what it means. Raises StoreError or Busy if nothing else is left."""
        outcome = Outcome(answer.status, self._client.document(answer))
        if outcome.status == GONE:
            self._forget()
        elif outcome.status in BUSY:
            raise Busy(answer.retry_after or BASE)
        elif lists and outcome.status in CANNOT_STREAM:
            self._stream_no_lists(objects.text(outcome.document, "message"))
        else:
            raise self._client.refusal(outcome, request)

    def _forget(self) -> None:
        """List anew. Raises StoreError if the list is young: so a server that forgets all the time
        is not asked for everything all the time."""
        log.info("listing anew, the server has forgotten what changed path=%s", quoted(self._path))
        self._version = ""
        if time.monotonic() - self._listed_at < HEALTHY:
            raise StoreError(f"{self._client.where} forgot at once what it had listed", hint=HINT)

    def _stream_no_lists(self, reason: str) -> None:
        log.info(
            "the server streams no lists path=%s reason=%s", quoted(self._path), quoted(reason)
        )
        _no_stream_until[self._client.access.servers] = time.monotonic() + NO_STREAM
