# SPDX-License-Identifier: Apache-2.0
"""All Services and EndpointSlices of a cluster, as documents, without those that no node needs.

The two labels are asked of the server: a cluster of headless Services would cost memory otherwise.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pycni.errors import InvalidSettings
from pycni.stores.kube import access, nodes
from pycni.stores.kube.client import Client
from pycni.stores.kube.following import Batch, Following
from pycni.stores.kube.location import KIND, Location
from pycni.stores.kube.objects import Document
from pycni.stores.kube.pages import pages

SELECTOR = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
KINDS = {
    "/api/v1/services": "Service",
    "/apis/discovery.k8s.io/v1/endpointslices": "EndpointSlice",
}
ZONE = "topology.kubernetes.io/zone"
WAITING = 100
"""Batches of changes that wait; who follows is slower than the server then."""
LOOK = 0.5
"""Seconds without news after which who follows is told so."""

T = TypeVar("T")


@dataclass(frozen=True)
class ServiceLists:
    """What the API server of a cluster has."""

    client: Client

    @classmethod
    def open(cls, url: str) -> ServiceLists:
        """Of the cluster whose store is at `url`. Raises InvalidSettings or FileError."""
        if not url.startswith(KIND):
            raise InvalidSettings(
                f"store = {url!r} has no Services: only Kubernetes has them",
                hint="name files that hold them: `pycni services -f FILE`; "
                "`kubectl get services,endpointslices -A -o yaml` writes one",
            )
        return cls(Client(access.find(Location.parse(url))))

    def documents(self) -> Iterator[Document]:
        """Each object with its kind, which lists leave out. Raises StoreError."""
        for path, kind in KINDS.items():
            for page in pages(self.client, path, labelSelector=SELECTOR):
                for one in page.items:
                    yield {**one, "kind": kind}

    def follow(
        self, stop: threading.Event, keep: Callable[[str, Document], T]
    ) -> Iterator[tuple[str, Batch[T]] | None]:
        """What is there, and what changes, of each kind as Following has it, until `stop`; None
        when nothing did for a moment. `keep` is told the kind. Raises PycniError before the first
        list of a kind is complete.
        """
        news: queue.Queue[tuple[str, Batch[T]] | Exception] = queue.Queue(WAITING)
        done = threading.Event()
        threads = [
            threading.Thread(
                target=self._follow_kind, args=(path, kind, keep, news, done), daemon=True
            )
            for path, kind in KINDS.items()
        ]
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

    def _follow_kind(
        self,
        path: str,
        kind: str,
        keep: Callable[[str, Document], T],
        news: queue.Queue[tuple[str, Batch[T]] | Exception],
        done: threading.Event,
    ) -> None:
        following = Following(
            self.client, path, lambda document: keep(kind, document), selector=SELECTOR
        )
        try:
            for batch in following.batches(done):
                _put(news, (kind, batch), done)
        except Exception as error:
            _put(news, error, done)

    def zone(self, node: str) -> str:
        """The zone of a Node; empty without one. Raises StoreError."""
        found = nodes.find(self.client, node)
        return found.labels.get(ZONE, "") if found is not None else ""


def _put(news: queue.Queue[T], one: T, done: threading.Event) -> None:
    """Wait for room, unless nobody takes it any more."""
    while not done.is_set():
        with suppress(queue.Full):
            news.put(one, timeout=LOOK)
            return
