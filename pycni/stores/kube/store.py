# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes store's two halves: registry and source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import NameTaken, StoreError, TryAgain
from pycni.stores import places
from pycni.stores.identity import boot_id
from pycni.stores.kube import access, nodes, objects, parameters
from pycni.stores.kube.blocks import Blocks
from pycni.stores.kube.client import Client
from pycni.stores.kube.following import Following
from pycni.stores.kube.heart import Heart
from pycni.stores.kube.leases import Leases
from pycni.stores.kube.location import Location
from pycni.stores.kube.news import News
from pycni.stores.kube.nodes import KubeNode
from pycni.stores.kube.objects import NODE_NETWORKS, Document
from pycni.stores.kube.pages import pages
from pycni.stores.places import Applicant
from pycni.stores.recent import Recent
from pycni.stores.records import printable
from pycni.stores.registry import Listing, NodeRecord, Rival
from pycni.stores.roster import Roster
from pycni.stores.source import Event

TRIES = 5
"""How often a change of the own object is tried again when it changed meanwhile."""


@dataclass(frozen=True)
class KubeStore:
    """A `Store` in the Kubernetes API. `clock` gives Unix time in seconds."""

    client: Client
    cluster: Cluster
    clock: Callable[[], float] = time.time
    recent: Recent[Roster] = field(default_factory=Recent, compare=False)
    """What `nodes` listed, for a registration right after."""

    @classmethod
    def open(cls, url: str, cluster: Cluster, *, create: bool = True) -> KubeStore:
        """The store at `kube:...`; with `create`, the ClusterNetwork is made if there is none.

        Raises InvalidSettings, FileError, ClusterError, StoreError.
        """
        client = Client(access.find(Location.parse(url)))
        parameters.check(client, cluster, create=create)
        return cls(client, cluster)

    def register(
        self,
        name: str,
        vtep: IPAddress,
        *,
        identity: str,
        instance: str = "",
        addresses: Iterable[IPAddress] = (),
    ) -> NodeRecord:
        """As of a Registry, but the pod CIDRs are those that Kubernetes gave to the Node of that
        name. Raises ClusterError as well, if they are not of this cluster."""
        node = nodes.with_cidrs(self.client, name)
        cidrs = nodes.pod_cidrs(node, self.cluster)
        applicant = Applicant(name, vtep, identity, instance, tuple(addresses))
        heart = Heart(self.client, name, instance, self.clock)
        for _ in range(TRIES):
            former = self.client.get(_path(name)) or {}
            try:
                record = self._seat(applicant, node, former=former, cidrs=cidrs)
            except NameTaken:
                heart.tell(Rival(instance, str(vtep)), former)
                raise
            record = self._with_claims(record, node)
            document = objects.node_network(
                record, identity=identity, instance=instance, uid=node.uid
            )
            if self.client.apply(_path(name), objects.if_unchanged(document, former)):
                heart.forget_rival(former)
                self._blocks.sweep(name, kept=record.extra, now=self.clock())
                return record
        raise self._never_still(name)

    def _seat(
        self,
        applicant: Applicant,
        node: KubeNode,
        *,
        former: Document,
        cidrs: tuple[IPNetwork, ...],
    ) -> NodeRecord:
        """The record that the node gets, whose object is `former` now. Raises StoreError."""
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
        return places.seat(applicant, roster, liveness=life, pod_cidrs=cidrs)

    def _with_claims(self, record: NodeRecord, node: KubeNode) -> NodeRecord:
        """The record without the addresses that another node has claimed meanwhile."""
        held = self._blocks.hold(record.extra, record.name, uid=node.uid)
        return replace(record, extra=held)

    def heartbeat(self, name: str, *, instance: str = "") -> Rival | None:
        return Heart(self.client, name, instance, self.clock).beat(self.cluster)

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
            raise self._not_registered(name)
        places.refuse_another_address(roster, name)
        self._refuse_nodes_own(prefix)
        node = nodes.find(self.client, name)
        if node is None:
            raise self._not_registered(name)
        holder = self._blocks.claim(prefix, name, uid=node.uid)
        if holder != name:
            return holder
        if not self._change_extra(name, lambda extra: extra | {str(prefix)}):
            raise self._not_registered(name)
        return name

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        self._change_extra(name, lambda extra: extra - {str(prefix)})
        self._blocks.release(prefix, name)

    def nodes(self) -> tuple[NodeRecord, ...]:
        roster = self.recent.keep(self._roster())
        return tuple(roster.nodes[name] for name in sorted(roster.nodes))

    def listing(self) -> Listing:
        return self._roster().listing(Leases(self.client, self.clock).all())

    def remove(self, name: str) -> bool:
        removed = self.client.delete(_path(name))
        self._blocks.release_all(name)
        return removed

    def watch(self, stop: threading.Event) -> Iterator[Event[NodeRecord]]:
        news = News(self.client.where, self._no_records())
        for batch in Following(self.client, NODE_NETWORKS, objects.raw).batches(stop):
            yield from news.of(batch)

    @property
    def _blocks(self) -> Blocks:
        return Blocks(self.client)

    def _no_records(self) -> Roster:
        return Roster(self.cluster, newer_has_vtep=True)

    def _roster(self) -> Roster:
        roster = self._no_records()
        for page in pages(self.client, NODE_NETWORKS):
            roster.change({objects.name_of(one): objects.raw(one) for one in page.items})
        return roster

    def _change_extra(self, name: str, change: Callable[[set[str]], set[str]]) -> bool:
        """Change the addresses that a node publishes; False if it is not registered."""
        for _ in range(TRIES):
            document = self.client.get(_path(name))
            if document is None:
                return False
            spec = objects.fields(document.get("spec"))
            extra = spec.get("extra")
            before = set(map(str, extra)) if isinstance(extra, list) else set()
            after = change(before)
            if before == after:
                return True
            changed: Document = spec | {"extra": sorted(after)}
            if self.client.apply(_path(name), objects.with_spec(document, changed)):
                return True
        raise self._never_still(name)

    def _refuse_nodes_own(self, prefix: IPNetwork) -> None:
        """Raise StoreError for an address that Kubernetes may give to a node at any time."""
        for cidr in self.cluster.cidrs:
            if cidr.version == prefix.version and cidr.overlaps(prefix):
                raise StoreError(
                    f"the address {prefix.network_address} is in {cidr}, which Kubernetes gives to "
                    "nodes, and is not in this node's pod CIDR",
                    hint="give pods addresses of the node's own pod CIDR, or outside of the "
                    "cluster's",
                )

    def _never_still(self, name: str) -> TryAgain:
        return TryAgain(
            f"the NodeNetwork {name} changes all the time", hint="nothing to do: it is tried again"
        )

    def _not_registered(self, name: str) -> StoreError:
        return StoreError(
            f"the node {name} is not registered in {self.client.where}", hint="register it again"
        )


def _path(name: str) -> str:
    return f"{NODE_NETWORKS}/{quote(name, safe='')}"
