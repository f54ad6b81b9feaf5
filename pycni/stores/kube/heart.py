# SPDX-License-Identifier: Apache-2.0
"""Heartbeats of this store: nothing is written, since kubelets renew leases already.

They look after the own NodeNetwork instead: that it is there, belongs to the Node as it is now, and
that no other machine writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from pycni.cluster import Cluster
from pycni.errors import StoreError
from pycni.stores.kube import nodes, objects, own
from pycni.stores.kube.client import Client
from pycni.stores.kube.objects import NODE_NETWORKS, RIVAL, Document
from pycni.stores.records import printable
from pycni.stores.registry import Rival


@dataclass(frozen=True)
class Heart:
    """Of one node, on one machine. All raise StoreError."""

    client: Client
    name: str
    instance: str
    clock: Callable[[], float]

    def beat(self, cluster: Cluster) -> Rival | None:
        """Look, if it is time to; another machine that has this node's name, if there is one."""
        known = own.own_of(self.client.where, self.name, self.instance)
        now = self.clock()
        if not known.is_due(now):
            return known.rival
        document = self.client.get(self._path)
        if document is None:
            self._make_again(known.spec, cluster)
            document = self.client.get(self._path) or {}
        elif not known.spec:
            self._follow_node(document)
        known.spec = objects.fields(document.get("spec"))
        known.rival = self._rival(document, now)
        known.looked(now)
        return known.rival

    def tell(self, rival: Rival) -> None:
        """Leave a note for the machine that has the name."""
        if rival.instance:
            self._annotate(own.note(rival, self.clock()))

    def forget_rival(self) -> None:
        """Take the note away: whoever still is one leaves another."""
        document = self.client.get(self._path) or {}
        notes = objects.fields(objects.metadata(document).get("annotations"))
        if RIVAL in notes:
            self._annotate(None)

    @property
    def _path(self) -> str:
        return f"{NODE_NETWORKS}/{quote(self.name, safe='')}"

    def _rival(self, document: Document, now: float) -> Rival | None:
        """The other machine: the one that registered last, or that left a note."""
        spec = objects.fields(document.get("spec"))
        registered = objects.text(spec, "instance")
        if not self.instance:
            return None
        if registered not in ("", self.instance):
            self.tell(Rival(self.instance))
            return Rival(printable(registered), printable(objects.text(spec, "vtep")))
        noted = own.read_note(document, now)
        return noted if noted and noted.instance not in ("", self.instance) else None

    def _make_again(self, spec: Document, cluster: Cluster) -> None:
        """The object is gone, by the garbage collector if the Node was made anew: make it again for
        the Node that is there now, as it was."""
        node = nodes.find(self.client, self.name) if spec else None
        if node is None:
            raise StoreError(
                f"the node {self.name} is not registered in {self.client.where}",
                hint="register it again",
            )
        cidrs = [str(cidr) for cidr in nodes.pod_cidrs(node, cluster)]
        if cidrs != spec.get("podCIDRs"):
            raise StoreError(
                f"Kubernetes made the Node {self.name} anew, with the pod CIDRs {', '.join(cidrs)}",
                hint="drain this node, then run `pycni setup` on it",
            )
        self.client.apply(self._path, self._document(spec, node.uid))

    def _follow_node(self, document: Document) -> None:
        """Give the object to the Node as it is now, before the garbage collector takes it for one
        of the Node that was."""
        node = nodes.find(self.client, self.name)
        if node is not None and node.uid != objects.owner_uid(document):
            spec = objects.fields(document.get("spec"))
            self.client.apply(self._path, self._document(spec, node.uid))

    def _document(self, spec: Document, uid: str) -> Document:
        head = {"name": self.name, "ownerReferences": [objects.owner(self.name, uid)]}
        return {"apiVersion": objects.API_VERSION, "kind": "NodeNetwork", "metadata": head,
                "spec": spec}  # fmt: skip

    def _annotate(self, value: str | None) -> None:
        self.client.merge(self._path, {"metadata": {"annotations": {RIVAL: value}}})
