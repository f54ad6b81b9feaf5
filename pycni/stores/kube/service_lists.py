# SPDX-License-Identifier: Apache-2.0
"""All Services and EndpointSlices of a cluster, as documents, without those that no node needs.

The two labels are asked of the server: a cluster of headless Services would cost memory otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pycni.errors import InvalidSettings
from pycni.stores.kube import access, kinds, nodes
from pycni.stores.kube.client import Client
from pycni.stores.kube.following import Batch
from pycni.stores.kube.location import KIND, Location
from pycni.stores.kube.objects import Document
from pycni.stores.kube.pages import pages

SELECTOR = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
KINDS = {
    "/api/v1/services": "Service",
    "/apis/discovery.k8s.io/v1/endpointslices": "EndpointSlice",
}
ZONE = "topology.kubernetes.io/zone"
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

    def documents(self, *, slices: bool = True) -> Iterator[Document]:
        """Each object with its kind, which lists leave out; EndpointSlices if `slices`. Raises
        StoreError."""
        for path, kind in KINDS.items():
            if kind == "EndpointSlice" and not slices:
                continue
            for page in pages(self.client, path, labelSelector=SELECTOR):
                for one in page.items:
                    yield {**one, "kind": kind}

    def follow(
        self, stop: threading.Event, keep: Callable[[str, Document], T]
    ) -> Generator[tuple[str, Batch[T]] | None, None, None]:
        """As `kinds.follow`. Raises PycniError before the first list of a kind is complete."""
        return kinds.follow(self.client, KINDS, stop, keep, selector=SELECTOR)

    def zone(self, node: str) -> str:
        """The zone of a Node; empty without one. Raises StoreError."""
        found = nodes.find(self.client, node)
        return found.labels.get(ZONE, "") if found is not None else ""
