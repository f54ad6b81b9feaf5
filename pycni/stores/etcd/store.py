# SPDX-License-Identifier: Apache-2.0
"""The etcd store's two halves: registry and source."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import StoreError
from pycni.stores import places
from pycni.stores.etcd.gateway import Gateway
from pycni.stores.etcd.keys import Document, absent, delete_key, present, put_key
from pycni.stores.etcd.keyspace import ALIVE, CLUSTER, NODES, Keyspace, Snapshot
from pycni.stores.etcd.leases import Leases
from pycni.stores.etcd.location import Location
from pycni.stores.etcd.watch import changes
from pycni.stores.places import Applicant
from pycni.stores.records import write
from pycni.stores.registry import Listing, Liveness, NodeRecord
from pycni.stores.roster import Roster
from pycni.stores.source import Event, Synced


@dataclass(frozen=True)
class EtcdStore:
    """A `Store` in etcd."""

    keyspace: Keyspace
    leases: Leases

    @classmethod
    def open(cls, url: str, cluster: Cluster, *, create: bool = True) -> EtcdStore:
        """The store at `etcd[s]://...`; with `create`, the cluster is made if there is none.

        Raises InvalidSettings, FileError, ClusterError, StoreError.
        """
        gateway = Gateway(Location.parse(url))
        keyspace = Keyspace(gateway, cluster)
        if create:
            key = keyspace.key(CLUSTER)
            text = json.dumps(places.parameters(cluster))
            keyspace.transact([absent(key)], [put_key(key, text)])
        keyspace.check_parameters(keyspace.value(CLUSTER))
        return cls(keyspace, Leases(gateway))

    def register(
        self,
        name: str,
        vtep: IPAddress,
        *,
        identity: str,
        addresses: Iterable[IPAddress] = (),
    ) -> NodeRecord:
        lease = self.leases.grant()
        applicant = Applicant(name, vtep, identity, tuple(addresses))

        def decide(snapshot: Snapshot) -> tuple[NodeRecord, list[Document]]:
            record = places.place(applicant, self._roster(snapshot), liveness=_liveness(snapshot))
            text = json.dumps(write(record, identity))
            alive = put_key(self.keyspace.key(ALIVE + name), "", lease=lease)
            return record, [put_key(self.keyspace.key(NODES + name), text), alive]

        try:
            record = self.keyspace.change(decide)
        except BaseException:
            self.leases.revoke(lease)
            raise
        self.leases.keep_for(name, lease)
        return record

    def heartbeat(self, name: str) -> None:
        lease = self.leases.renewed(name)
        node, alive = self.keyspace.key(NODES + name), self.keyspace.key(ALIVE + name)
        bound = {"key": alive, "target": "LEASE", "result": "EQUAL", "lease": lease}
        if self.keyspace.transact([present(node), bound], []):
            return
        if not self.keyspace.transact([present(node)], [put_key(alive, "", lease=lease)]):
            raise self._not_registered(name)

    def publish(self, name: str, prefix: IPNetwork) -> str:
        def decide(snapshot: Snapshot) -> tuple[str, list[Document]]:
            if owner := places.owner(self._roster(snapshot), prefix):
                return owner, []
            record = snapshot.records.get(name)
            if record is None or not isinstance(record.document, dict):
                raise self._not_registered(name)
            extra = sorted((*_extra(record.document), str(prefix)), key=str)
            return name, [self._put_extra(name, record.document, extra)]

        return self.keyspace.change(decide)

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        def decide(snapshot: Snapshot) -> tuple[None, list[Document]]:
            record = snapshot.records.get(name)
            if record is None or not isinstance(record.document, dict):
                return None, []
            before = _extra(record.document)
            extra = [one for one in before if one != str(prefix)]
            if extra == before:
                return None, []
            return None, [self._put_extra(name, record.document, extra)]

        self.keyspace.change(decide)

    def nodes(self) -> tuple[NodeRecord, ...]:
        return self.listing().nodes

    def listing(self) -> Listing:
        snapshot = self.keyspace.read()
        return self._roster(snapshot).listing(_liveness(snapshot))

    def remove(self, name: str) -> bool:
        keys = [self.keyspace.key(head + name) for head in (NODES, ALIVE)]

        def decide(snapshot: Snapshot) -> tuple[bool, list[Document]]:
            if name not in snapshot.records:
                return False, []
            return True, [delete_key(key) for key in keys]

        removed = self.keyspace.change(decide)
        self.leases.end(name)
        return removed

    def watch(self, stop: threading.Event) -> Iterator[Event[NodeRecord]]:
        if stop.is_set():
            return
        snapshot = self.keyspace.read()
        roster = Roster(self.keyspace.cluster)
        yield from roster.change(snapshot.records)
        yield Synced()
        for records in changes(self.keyspace, snapshot.revision + 1, stop):
            if events := roster.change(records):
                yield from events
                yield Synced()

    def _roster(self, snapshot: Snapshot) -> Roster:
        return Roster(self.keyspace.cluster, snapshot.records)

    def _put_extra(self, name: str, document: Document, extra: list[object]) -> Document:
        """A record with other published addresses; fields that we do not know stay."""
        return put_key(self.keyspace.key(NODES + name), json.dumps(document | {"extra": extra}))

    def _not_registered(self, name: str) -> StoreError:
        return StoreError(
            f"the node {name} is not registered in {self.keyspace.where}", hint="register it again"
        )


def _liveness(snapshot: Snapshot) -> dict[str, Liveness]:
    """Whether a node's lease runs. Since when a silent one is silent, etcd does not know."""
    return {name: Liveness(alive=True) for name in snapshot.alive}


def _extra(document: Document) -> list[object]:
    extra = document.get("extra")
    return extra if isinstance(extra, list) else []
