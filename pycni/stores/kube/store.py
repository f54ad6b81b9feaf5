# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes store's two halves: registry and source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from pycni.cluster import Cluster, IPAddress, IPNetwork, overlap
from pycni.errors import ClusterError, NameTaken, StoreError
from pycni.stores import places
from pycni.stores.former import NEW, Former
from pycni.stores.identity import boot_id
from pycni.stores.ip_pools import BlockRegistry
from pycni.stores.kube import access, nodes, objects, parameters
from pycni.stores.kube.blocks import Blocks
from pycni.stores.kube.changes import (
    TRIES,
    change_list,
    never_still,
    not_registered,
    path_of,
)
from pycni.stores.kube.client import Client
from pycni.stores.kube.following import Following
from pycni.stores.kube.heart import Heart
from pycni.stores.kube.leases import Leases
from pycni.stores.kube.location import Location
from pycni.stores.kube.news import News
from pycni.stores.kube.nodes import KubeNode
from pycni.stores.kube.objects import NODE_NETWORKS, Document
from pycni.stores.kube.pages import pages
from pycni.stores.kube.pooling import Pooling
from pycni.stores.places import Applicant
from pycni.stores.recent import Recent
from pycni.stores.records import printable
from pycni.stores.registry import BY_VXLAN, Listing, NodeRecord, Reach, Rival
from pycni.stores.roster import Roster
from pycni.stores.source import Event


@dataclass(frozen=True)
class KubeStore:
    """A `Store` in the Kubernetes API. `clock` gives Unix time in seconds."""

    client: Client
    cluster: Cluster
    clock: Callable[[], float] = time.time
    pooled: bool = False
    """Whether nodes have their pod CIDRs from IPPools, and not from their Node."""
    recent: Recent[Roster] = field(default_factory=Recent, compare=False)
    """What `nodes` listed, for a registration right after."""

    @classmethod
    def open(cls, url: str, cluster: Cluster, *, create: bool = True) -> KubeStore:
        """The store at `kube:...`; with `create`, the ClusterNetwork is made if there is none.

        Raises InvalidSettings, FileError, ClusterError, StoreError.
        """
        client = Client(access.find(Location.parse(url)))
        source = parameters.check(client, cluster, create=create)
        return cls(client, cluster, pooled=source == parameters.POOL)

    def register(
        self,
        name: str,
        vtep: IPAddress,
        *,
        identity: str,
        instance: str = "",
        reach: Reach = BY_VXLAN,
        had: Former = NEW,
    ) -> NodeRecord:
        """As of a Registry, but the pod CIDRs are those that Kubernetes gave to the Node of that
        name, or blocks of pools. Raises ClusterError as well, if the Node's are not of this
        cluster."""
        waits = () if had.pod_cidrs else nodes.WAITS  # who was a node before tries again later
        find = nodes.present if self.pooled else nodes.with_cidrs
        node = find(self.client, name, waits)
        cidrs = () if self.pooled else nodes.pod_cidrs(node, self.cluster)
        applicant = Applicant(name, vtep, identity, instance, reach, had)
        heart = self._heart(name, instance)
        for _ in range(TRIES):
            former = self.client.get(path_of(name)) or {}
            try:
                record = self._seat(applicant, node, former=former, cidrs=cidrs)
            except NameTaken:
                heart.tell(Rival(instance, str(vtep)), former)
                raise
            record = self._with_claims(record, node)
            document = objects.node_network(
                record, identity=identity, instance=instance, uid=node.uid
            )
            if self.client.apply(path_of(name), objects.if_unchanged(document, former)):
                heart.forget_rival(former)
                kept = (*record.extra, *record.networks)
                self._blocks.sweep(name, kept=kept, now=self.clock())
                return record
        raise never_still(name)

    def _seat(
        self,
        applicant: Applicant,
        node: KubeNode,
        *,
        former: Document,
        cidrs: tuple[IPNetwork, ...],
    ) -> NodeRecord:
        """The record that the node gets, whose object is `former` now. `cidrs` are those of its
        Node. Raises StoreError."""
        name = applicant.name
        is_here = bool(node.boot_id) and node.boot_id == boot_id()
        spec = objects.fields(former.get("spec"))
        life = Leases(
            self.client,
            self.clock,
            ours=name if is_here else "",
            instances={name: printable(objects.text(spec, "instance"))},
        )
        roster = self.recent.take() or self._roster()
        roster.change({name: objects.raw(former) if former else None})
        places.refuse(applicant, roster, liveness=life)
        if not self.pooled:
            return places.seat(applicant, roster, pod_cidrs=cidrs)
        cidrs, blocks = self._pooling.places(node, former, roster, had=applicant.had)
        return places.seat(applicant, roster, pod_cidrs=cidrs, blocks=blocks)

    def _with_claims(self, record: NodeRecord, node: KubeNode) -> NodeRecord:
        """The record without the addresses that another node has claimed meanwhile."""
        held = self._blocks.hold(record.extra, record.name, uid=node.uid)
        return replace(record, extra=held)

    def keeps(self, name: str, had: Former) -> bool:
        node = nodes.find(self.client, name)
        if node is None:
            return False
        if self.pooled:
            holders = map(self._blocks.holder, had.networks)
            return all(holder in ("", name) for holder in holders)
        try:
            return nodes.pod_cidrs(node, self.cluster) == had.pod_cidrs
        except ClusterError:  # none, or others'
            return False

    def heartbeat(self, name: str, *, instance: str = "") -> Rival | None:
        return self._heart(name, instance).beat(self.cluster)

    def warnings(self) -> list[str]:
        if self.client.access.tls:
            return []
        return [f"{self.client.where} is reached without TLS: whoever is between can read and "
                "change where pods are (use https:// in the kubeconfig)"]  # fmt: skip

    def publish(self, name: str, prefix: IPNetwork) -> str:
        roster = self._roster()
        if owner := places.owner(roster, prefix):
            return owner
        if name not in roster.claims:
            raise not_registered(self.client, name)
        places.refuse_another_address(roster, name)
        self._refuse_nodes_own(prefix)
        node = nodes.find(self.client, name)
        if node is None:
            raise not_registered(self.client, name)
        holder = self._blocks.claim(prefix, name, uid=node.uid)
        if holder != name:
            return holder
        published = change_list(
            self.client, name, "extra", lambda extra: sorted({*extra, str(prefix)})
        )
        if published is None:
            raise not_registered(self.client, name)
        return name

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        change_list(self.client, name, "extra", lambda extra: sorted({*extra} - {str(prefix)}))
        self._blocks.release(prefix, name)

    def blocks(self) -> BlockRegistry | None:
        return self._pooling if self.pooled else None

    def nodes(self) -> tuple[NodeRecord, ...]:
        roster = self.recent.keep(self._roster())
        return tuple(roster.nodes[name] for name in sorted(roster.nodes))

    def listing(self) -> Listing:
        return self._roster().listing(Leases(self.client, self.clock).all())

    def remove(self, name: str) -> bool:
        removed = self.client.delete(path_of(name))
        self._blocks.release_all(name)
        return removed

    def watch(self, stop: threading.Event) -> Iterator[Event[NodeRecord]]:
        news = News(self.client.where, self._no_records(keeps_identity=False))
        for batch in Following(self.client, NODE_NETWORKS, objects.raw).batches(stop):
            yield from news.of(batch)
            del batch  # the next may be a long time coming

    @property
    def _blocks(self) -> Blocks:
        return Blocks(self.client)

    @property
    def _pooling(self) -> Pooling:
        return Pooling(self.client, self.cluster, self.clock)

    def _heart(self, name: str, instance: str) -> Heart:
        return Heart(self.client, name, instance, self.clock, self.pooled)

    def _no_records(self, *, keeps_identity: bool = True) -> Roster:
        return Roster(
            self.cluster,
            newer_has_vtep=True,
            extra_in_cluster=False,
            keeps_identity=keeps_identity,
        )

    def _roster(self) -> Roster:
        roster = self._no_records()
        for page in pages(self.client, NODE_NETWORKS):
            roster.change({objects.name_of(one): objects.raw(one) for one in page.items})
        return roster

    def _refuse_nodes_own(self, prefix: IPNetwork) -> None:
        """Raise StoreError for an address that Kubernetes may give to a node at any time."""
        for cidr in self.cluster.cidrs:
            if overlap(cidr, prefix):
                raise StoreError(
                    f"the address {prefix.network_address} is in {cidr}, which Kubernetes gives to "
                    "nodes, and is not in this node's pod CIDR",
                    hint="give pods addresses of the node's own pod CIDR, or outside of the "
                    "cluster's",
                )
