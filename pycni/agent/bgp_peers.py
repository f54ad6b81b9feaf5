# SPDX-License-Identifier: Apache-2.0
"""Follows BGPPeer resources, and keeps what they are for this node in a file (bgp/resources.py).

Nothing is written before the list is complete. `speaking.py` reads the file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from pycni.agent.loops import Run
from pycni.bgp import resources
from pycni.bgp.resources import Resource
from pycni.bgp_settings import Bgp
from pycni.errors import TryAgain
from pycni.settings import Settings
from pycni.stores.kube import access, kinds, nodes, objects
from pycni.stores.kube.client import Client
from pycni.stores.kube.following import Batch, Phase
from pycni.stores.kube.location import Location
from pycni.stores.kube.objects import Document

LABELS_SECONDS = 60.0
"""After which this node's labels are read again, where a resource asks for some."""

log = logging.getLogger(__name__)


def follow(settings: Settings, run: Run) -> None:
    """Until the agent stops. Raises PycniError."""
    bgp = settings.bgp
    assert bgp is not None
    client = Client(access.find(Location.parse(settings.store_url)))
    peers = Peers(settings, bgp, lambda: labels(client, settings.node_name))
    paths = {objects.BGP_PEERS: "BGPPeer"}
    with closing(kinds.follow(client, paths, run.stop, keep=lambda _, one: read(one))) as news:
        for one in news:
            if one is None:
                peers.look_again()
            else:
                peers.take(one[1])
            if peers.is_complete:
                run.well()


def read(document: Document) -> Resource:
    """Never raises."""
    return resources.read(objects.fields(document.get("spec")))


def labels(client: Client, name: str) -> Mapping[str, str]:
    """Of a Node. Raises StoreError."""
    node = nodes.find(client, name)
    if node is None:
        raise TryAgain(f"Kubernetes has no Node {name}", hint="wait: its kubelet makes it")
    return node.labels


@dataclass
class Peers:
    """All of them, as the API server told."""

    settings: Settings
    bgp: Bgp
    labels: Callable[[], Mapping[str, str]]
    """This node's, asked anew."""
    is_complete: bool = False
    _known: dict[str, Resource] = field(default_factory=dict)
    _listed: set[str] = field(default_factory=set)
    _labels: Mapping[str, str] = field(default_factory=dict)
    _labels_at: float | None = None
    """When they were read; None: they were not."""

    def take(self, batch: Batch[Resource]) -> None:
        """Raises PycniError; what was taken in is kept."""
        for name, one in batch.values.items():
            if one is None:
                self._known.pop(name, None)
            else:
                self._known[name] = one
        if batch.phase is Phase.BEGIN:
            self._listed = set()
        elif batch.phase is Phase.PART:
            self._listed |= batch.values.keys()
        elif batch.phase is Phase.END:
            self._known = {name: self._known[name] for name in self._listed}
            self.is_complete = True
        if self.is_complete and batch.phase in (Phase.END, Phase.CHANGE):
            self._write()

    def look_again(self) -> None:
        """Nothing came: perhaps the labels are others. Raises PycniError."""
        if self.is_complete and self._are_labels_old():
            self._write()

    def _write(self) -> None:
        if self._are_labels_old():
            self._labels, self._labels_at = self.labels(), time.monotonic()
        chosen = resources.choose(self._known, self._labels, self.bgp)
        if resources.save(self.settings, chosen):
            log.info("BGPPeers of this node used=%d set_aside=%d",
                     len(chosen.peers), len(chosen.set_aside))  # fmt: skip

    def _are_labels_old(self) -> bool:
        if not any(one.selector for one in self._known.values()):
            return False
        return self._labels_at is None or time.monotonic() - self._labels_at > LABELS_SECONDS
