# SPDX-License-Identifier: Apache-2.0
"""Whether nodes live, by the leases that their kubelets renew (KEP-589). pycni writes none.

Read on demand only: to refuse a second machine of one name or address, and for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from urllib.parse import quote

from pycni.stores.kube import objects
from pycni.stores.kube.client import Client
from pycni.stores.kube.objects import Document
from pycni.stores.kube.pages import pages
from pycni.stores.registry import Liveness

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
DURATION = 40.0
"""Seconds: kubelet's default of nodeLeaseDurationSeconds."""


class Leases(Mapping[str, Liveness]):
    """The liveness of a node, asked for when it is looked up. Raises StoreError then."""

    def __init__(
        self,
        client: Client,
        clock: Callable[[], float],
        *,
        ours: str = "",
        instances: Mapping[str, str] | None = None,
    ) -> None:
        """`ours` is a node whose kubelet runs on this machine: it is no other machine's.
        `instances` says of some nodes which machine registered them last."""
        self._client = client
        self._clock = clock
        self._ours = ours
        self._instances = instances or {}

    def __getitem__(self, name: str) -> Liveness:
        if name == self._ours:
            return Liveness(alive=False)
        document = self._client.get(f"{LEASES}/{quote(name, safe='')}")
        if document is None:
            raise KeyError(name)
        life = _liveness(document, self._clock())
        return replace(life, instance=self._instances.get(name, ""))

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self.all())

    def all(self) -> dict[str, Liveness]:
        """Of all nodes, by name."""
        now = self._clock()
        return {
            objects.name_of(lease): _liveness(lease, now)
            for page in pages(self._client, LEASES)
            for lease in page.items
        }


def _liveness(lease: Document, now: float) -> Liveness:
    """By the clock of the node whose lease it is; a time in the future is now."""
    spec = objects.fields(lease.get("spec"))
    duration = spec.get("leaseDurationSeconds")
    fresh = float(duration) if isinstance(duration, int) else DURATION
    try:
        renewed = datetime.fromisoformat(objects.text(spec, "renewTime")).timestamp()
    except (ValueError, OverflowError):
        return Liveness(alive=False)
    ago = max(0.0, now - renewed)
    return Liveness(ago < fresh, ago)
