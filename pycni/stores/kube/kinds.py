# SPDX-License-Identifier: Apache-2.0
"""Objects of several kinds, followed at once by one reader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from typing import TypeVar

from pycni.stores.kube.client import Client
from pycni.stores.kube.following import Batch, Following
from pycni.stores.kube.objects import Document

WAITING = 100
"""Batches of changes that wait; who follows is slower than the server then."""
LOOK = 0.5
"""Seconds without news after which who follows is told so."""

T = TypeVar("T")


def follow(
    client: Client,
    kinds: Mapping[str, str],
    stop: threading.Event,
    keep: Callable[[str, Document], T],
    *,
    selector: str = "",
) -> Generator[tuple[str, Batch[T]] | None, None, None]:
    """What is there, and what changes, of each kind as Following has it, until `stop`; None when
    nothing did for a moment. `kinds` are by their paths, and `keep` is told the kind. Raises
    PycniError before the first list of a kind is complete.
    """
    news: queue.Queue[tuple[str, Batch[T]] | Exception] = queue.Queue(WAITING)
    done = threading.Event()

    def follow_kind(path: str, kind: str) -> None:
        following = Following(
            client, path, lambda document: keep(kind, document), selector=selector
        )
        try:
            for batch in following.batches(done):
                _put(news, (kind, batch), done)
        except Exception as error:
            _put(news, error, done)

    threads = [threading.Thread(target=follow_kind, args=one, daemon=True) for one in kinds.items()]
    for thread in threads:
        thread.start()
    try:
        while not stop.is_set():
            try:
                one = news.get(timeout=LOOK)
            except queue.Empty:
                yield None
                continue
            if isinstance(one, Exception):
                raise one
            yield one
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _put(news: queue.Queue[T], one: T, done: threading.Event) -> None:
    """Wait for room, unless nobody takes it any more."""
    while not done.is_set():
        with suppress(queue.Full):
            news.put(one, timeout=LOOK)
            return
