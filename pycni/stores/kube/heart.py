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
from pycni.errors import ClusterError, PlaceLost
from pycni.stores.kube import nodes, objects, own
from pycni.stores.kube.blocks import Blocks
from pycni.stores.kube.changes import not_registered
from pycni.stores.kube.client import Client
from pycni.stores.kube.nodes import KubeNode
from pycni.stores.kube.objects import NODE_NETWORKS, RIVAL, Document
from pycni.stores.kube.own import Own
from pycni.stores.records import printable
from pycni.stores.registry import Rival

CLAIMED = (("extra",), ("podCIDRs", "blocks", "extra"))
"""Lists of a NodeNetwork that take claims: without pools, and with them."""
DRAIN = "drain this node, then run `pycni setup` on it"


@dataclass(frozen=True)
class Heart:
    """Of one node, on one machine. All raise StoreError; `beat` PlaceLost among it."""

    client: Client
    name: str
    instance: str
    clock: Callable[[], float]
    pooled: bool = False
    """Whether the node has its pod CIDRs from pools, and not from its Node."""

    def beat(self, cluster: Cluster) -> Rival | None:
        """Look, if it is time to; another machine that has this node's name, if there is one."""
        known = own.own_of(self.client.where, self.name, self.instance)
        now = self.clock()
        if not known.is_due(now):
            return known.rival
        doubted, known.in_doubt = known.in_doubt, False  # a doubt that comes meanwhile stays
        is_well = False
        try:
            is_well = self._look(known, cluster, doubted=doubted)
        finally:
            known.in_doubt = known.in_doubt or not is_well
        if is_well:
            known.looked(now)
        return known.rival

    def _look(self, known: Own, cluster: Cluster, *, doubted: bool) -> bool:
        """False if the object changed meanwhile."""
        document = self.client.get(self._path)
        if document is None:
            self._make_again(known.spec, cluster)
            document = self.client.get(self._path) or {}
        elif doubted:
            known.spec = objects.fields(document.get("spec"))
            if not self._follow_node(document, cluster):
                return False
        known.spec = objects.fields(document.get("spec"))
        known.rival = self._rival(document, self.clock())
        return True

    def tell(self, rival: Rival, document: Document) -> None:
        """Leave a note at the object for the machine that has the name, unless it is there: all
        nodes are told of each change of the object."""
        now = self.clock()
        if rival.instance and not own.has_note(document, rival, now):
            self._annotate(own.note(rival, now))

    def forget_rival(self, document: Document) -> None:
        """Take the note away that the object had: whoever still is a rival leaves another."""
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
            self.tell(Rival(self.instance), document)
            vtep = printable(objects.text(spec, "vtep"))
            return Rival(printable(registered), vtep, has_place=True)
        noted = own.read_note(document, now)
        return noted if noted and noted.instance not in ("", self.instance) else None

    def _make_again(self, spec: Document, cluster: Cluster) -> None:
        """The object is gone, by the garbage collector if the Node was made anew: make it again for
        the Node that is there now, as it was."""
        if not spec:
            raise not_registered(self.client, self.name)
        node = nodes.find(self.client, self.name)
        if node is None:
            raise PlaceLost(
                f"the node {self.name} is not registered in {self.client.where}, which has no "
                "Node of that name",
                hint="have kubelet make it again: restart kubelet",
            )
        if not self.pooled:
            self._refuse_other_cidrs(node, spec, cluster)
        self._give(spec, uid=node.uid, former={})

    def _refuse_other_cidrs(self, node: KubeNode, spec: Document, cluster: Cluster) -> None:
        if not node.cidrs:
            raise PlaceLost(
                f"Kubernetes made the Node {self.name} anew, and has given it no pod CIDR yet",
                hint="nothing to do: it is tried again",
            )
        try:
            cidrs = [str(cidr) for cidr in nodes.pod_cidrs(node, cluster)]
        except ClusterError as error:
            raise PlaceLost(error.message, hint=error.hint) from error
        if cidrs != spec.get("podCIDRs"):
            raise PlaceLost(
                f"Kubernetes made the Node {self.name} anew, with the pod CIDRs {', '.join(cidrs)}",
                hint=DRAIN,
            )

    def _follow_node(self, document: Document, cluster: Cluster) -> bool:
        """Give the object to the Node as it is now, before the garbage collector takes it for one
        of the Node that was. False if the object changed meanwhile."""
        node = nodes.find(self.client, self.name)
        if node is None or node.uid == objects.owner_uid(document):
            return True
        spec = objects.fields(document.get("spec"))
        if not self.pooled:
            self._refuse_other_cidrs(node, spec, cluster)
        return self._give(spec, uid=node.uid, former=document)

    def _give(self, spec: Document, *, uid: str, former: Document) -> bool:
        """Write the object for the Node with this UID, with the addresses and blocks that it can
        claim. Raises PlaceLost if another node has claimed a pod CIDR."""
        lists = {field: objects.networks(spec, field) for field in CLAIMED[self.pooled]}
        wanted = dict.fromkeys(one for found in lists.values() for one in found)
        held = Blocks(self.client).hold(wanted, self.name, uid=uid)
        kept = {field: [one for one in lists[field] if one in held] for field in lists}
        if lost := [str(one) for one in lists.get("podCIDRs", ()) if one not in held]:
            raise PlaceLost(
                f"another node has claimed {', '.join(lost)} while the Node {self.name} was gone",
                hint=DRAIN,
            )
        claimed: Document = {field: [*map(str, found)] for field, found in kept.items()
                             if found or field in spec}  # fmt: skip
        head = {"name": self.name, "ownerReferences": [objects.owner(self.name, uid)]}
        whole: Document = {"apiVersion": objects.API_VERSION, "kind": "NodeNetwork",
                           "metadata": head,
                           "spec": spec | claimed}  # fmt: skip
        return self.client.apply(self._path, objects.if_unchanged(whole, former))

    def _annotate(self, value: str | None) -> None:
        self.client.merge(self._path, {"metadata": {"annotations": {RIVAL: value}}})
