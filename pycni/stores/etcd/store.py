# SPDX-License-Identifier: Apache-2.0
"""The etcd store's two halves: registry and source."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import NameTaken, PlaceLost
from pycni.stores import places
from pycni.stores.etcd.gateway import Gateway
from pycni.stores.etcd.keys import Document, absent, delete_key, get_key, present, put_key
from pycni.stores.etcd.keyspace import (
    ALIVE,
    CLUSTER,
    NODES,
    RIVALS,
    SEEN,
    Keyspace,
    Snapshot,
    read_rival,
    write_rival,
)
from pycni.stores.etcd.leases import Leases
from pycni.stores.etcd.location import Location
from pycni.stores.etcd.watch import changes
from pycni.stores.former import NEW, Former
from pycni.stores.places import Applicant
from pycni.stores.recent import Recent
from pycni.stores.records import named, write
from pycni.stores.registry import (
    BY_VXLAN,
    HEARTBEAT_FRESH,
    Listing,
    Liveness,
    NodeRecord,
    Reach,
    Rival,
)
from pycni.stores.roster import Roster
from pycni.stores.source import Event, Synced


@dataclass(frozen=True)
class EtcdStore:
    """A `Store` in etcd."""

    keyspace: Keyspace
    leases: Leases
    recent: Recent[Snapshot] = field(default_factory=Recent, compare=False)
    """What `nodes` read, for a registration right after."""

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
        instance: str = "",
        reach: Reach = BY_VXLAN,
        had: Former = NEW,
    ) -> NodeRecord:
        lease = self.leases.grant()
        us = write_rival(Rival(instance, str(vtep)))
        applicant = Applicant(name, vtep, identity, instance, reach, had)

        def decide(snapshot: Snapshot) -> tuple[NodeRecord, list[Document]]:
            record = places.place(applicant, self._roster(snapshot), liveness=_liveness(snapshot))
            text = json.dumps(write(record, identity))
            alive = put_key(self.keyspace.key(ALIVE + name), us, lease=lease)
            return record, [put_key(self.keyspace.key(NODES + name), text), alive]

        try:
            record = self.keyspace.change(decide, read=self.recent.take)
        except NameTaken:
            # for the one who has it, as long as the lease runs
            self.keyspace.transact([], [put_key(self.keyspace.key(RIVALS + name), us, lease=lease)])
            raise
        except BaseException:
            self.leases.revoke(lease)
            raise
        self.leases.keep_for(name, lease)
        return record

    def keeps(self, name: str, had: Former) -> None:
        """The records decide."""

    def heartbeat(self, name: str, *, instance: str = "") -> Rival | None:
        lease, beaten_before = self.leases.renewed(name), self.leases.has_beaten(name)
        node, alive, rivals = (self.keyspace.key(head + name) for head in (NODES, ALIVE, RIVALS))
        bound = {"key": alive, "target": "LEASE", "result": "EQUAL", "lease": lease}
        is_ours, found = self.keyspace.ask([present(node), bound], [get_key(rivals)],
                                           [get_key(alive)])  # fmt: skip
        others = [one for one in map(read_rival, found) if one.instance not in ("", instance)]
        if not is_ours:
            us = write_rival(Rival(instance, ""))
            if not self.keyspace.transact([present(node)], [put_key(alive, us, lease=lease)]):
                raise self._not_registered(name)
            # what another wrote before our first heartbeat may be this machine before a reboot
            if not beaten_before:
                others = []
        if instance and self.leases.is_due(name):
            now = put_key(self.keyspace.key(SEEN + name), str(int(time.time())))
            self.keyspace.transact([present(node)], [now])
        return others[0] if others and instance else None

    def warnings(self) -> list[str]:
        return self.keyspace.gateway.warnings(self.keyspace.key(CLUSTER))

    def publish(self, name: str, prefix: IPNetwork) -> str:
        def decide(snapshot: Snapshot) -> tuple[str, list[Document]]:
            if owner := places.owner(self._roster(snapshot), prefix):
                return owner, []
            record = snapshot.records.get(name)
            if record is None or not isinstance(record.document, dict):
                raise self._not_registered(name)
            places.refuse_another_address(self._roster(snapshot), name)
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

    def blocks(self) -> None:
        """Nodes of this store have their pod CIDRs, and no more."""

    def nodes(self) -> tuple[NodeRecord, ...]:
        roster = self._roster(self.recent.keep(self.keyspace.read()))
        return tuple(roster.nodes[name] for name in sorted(roster.nodes))

    def listing(self) -> Listing:
        snapshot = self.keyspace.read()
        return self._roster(snapshot).listing(_liveness(snapshot))

    def remove(self, name: str) -> bool:
        def decide(snapshot: Snapshot) -> tuple[bool, list[Document]]:
            found = named(snapshot.records, name)
            if found is None:
                return False, []
            heads = (NODES, ALIVE, RIVALS, SEEN)
            return True, [delete_key(self.keyspace.key(head + found)) for head in heads]

        removed = self.keyspace.change(decide)
        self.leases.end(name)
        return removed

    def watch(self, stop: threading.Event) -> Iterator[Event[NodeRecord]]:
        if stop.is_set():
            return
        roster = Roster(self.keyspace.cluster, keeps_identity=False)
        revision, events = self._first(roster)
        yield from events
        events.clear()  # not kept while the watch lasts
        yield Synced()
        for records in changes(self.keyspace, revision + 1, stop):
            if news := roster.change(records):
                yield from news
                yield Synced()

    def _first(self, roster: Roster) -> tuple[int, list[Event[NodeRecord]]]:
        """Put all records into a roster; their revision, and the events that they make."""
        snapshot = self.keyspace.read()
        return snapshot.revision, roster.change(snapshot.records)

    def _roster(self, snapshot: Snapshot) -> Roster:
        return Roster(self.keyspace.cluster, snapshot.records)

    def _put_extra(self, name: str, document: Document, extra: list[object]) -> Document:
        """A record with other published addresses; fields that we do not know stay."""
        return put_key(self.keyspace.key(NODES + name), json.dumps(document | {"extra": extra}))

    def _not_registered(self, name: str) -> PlaceLost:
        return PlaceLost(
            f"the node {name} is not registered in {self.keyspace.where}", hint="register it again"
        )


def _liveness(snapshot: Snapshot) -> dict[str, Liveness]:
    """Whether a node's lease runs, and when it last said that it lives: at least then. The times
    are of the nodes' clocks; one in the future is now."""
    now = time.time()
    found = {}
    for name in {*snapshot.alive, *snapshot.seen}:
        alive = name in snapshot.alive
        seen = snapshot.seen.get(name)
        ago = None if seen is None else max(0.0, now - seen)
        if alive and ago is not None:
            ago = min(ago, HEARTBEAT_FRESH)
        found[name] = Liveness(alive, ago, snapshot.alive.get(name, ""))
    return found


def _extra(document: Document) -> list[object]:
    extra = document.get("extra")
    return extra if isinstance(extra, list) else []
