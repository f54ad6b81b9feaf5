"""The etcd store: nodes of a cluster whose machines share nothing but a network.

Keys below the prefix of the URL:

    cluster         the parameters all nodes agree on; without it there is no cluster here
    places          written with every change of who has what, so that of two changes one is redone
    nodes/NAME      a record; JSON
    alive/NAME      there while its agent says so: bound to a lease, which etcd lets run out

Whether a node lives is decided by etcd's leases and by no machine's clock.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import PycniError, StoreError, TryAgain
from pycni.stores import (
    HEARTBEAT_FRESH,
    Event,
    NodeRecord,
    Put,
    Removed,
    Synced,
    places,
)
from pycni.stores.etcd.gateway import Gateway
from pycni.stores.etcd.keys import (
    NEVER,
    Document,
    absent,
    below,
    decode,
    delete_key,
    encode,
    from_base64,
    present,
    put_key,
    to_base64,
)
from pycni.stores.etcd.location import Location

CLUSTER, PLACES, NODES, ALIVE = "cluster", "places", "nodes/", "alive/"

PATIENCE = 10.0
"""Seconds for which a change is tried again when others were quicker."""

T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """What the prefix held at one revision."""

    revision: int
    places_revision: int
    """When `places` was last written; 0: never."""
    nodes: dict[str, NodeRecord]
    identities: dict[str, str]
    alive: frozenset[str]


@dataclass
class EtcdStore:
    """A `Store` in etcd. `clock` gives Unix time in seconds, for records of nodes that live."""

    gateway: Gateway
    cluster: Cluster
    clock: Callable[[], float] = time.time
    _leases: dict[str, str] = field(default_factory=dict)
    """By node: the lease that our heartbeats keep alive."""

    @classmethod
    def open(cls, url: str, cluster: Cluster, *, create: bool = True) -> EtcdStore:
        """The store at `etcd[s]://...`; with `create`, the cluster is made if there is none.

        Raises InvalidSettings, FileError, ClusterError, StoreError.
        """
        store = cls(Gateway(Location.parse(url)), cluster)
        if create:
            key = store._key(CLUSTER)
            text = json.dumps(places.parameters(cluster))
            store._transact([absent(key)], [put_key(key, text)])
        store._check_parameters(store._value(CLUSTER))
        return store

    def register(self, name: str, vtep: IPAddress, *, identity: str) -> NodeRecord:
        lease = self._grant()
        try:
            record = self._change(lambda stored: self._registration(
                stored, name, vtep, identity, lease
            ))  # fmt: skip
        except BaseException:
            self._revoke(lease)
            raise
        self._leases[name] = lease
        return replace(record, heartbeat=self.clock())

    def heartbeat(self, name: str) -> None:
        lease = self._leases.get(name)
        if lease is None or not self._keep(lease):
            lease = self._leases[name] = self._grant()
        node, alive = self._key(NODES + name), self._key(ALIVE + name)
        bound = {"key": alive, "target": "LEASE", "result": "EQUAL", "lease": lease}
        if self._transact([present(node), bound], []):
            return
        if not self._transact([present(node)], [put_key(alive, "", lease=lease)]):
            raise self._not_registered(name)

    def publish(self, name: str, prefix: IPNetwork) -> str:
        def decide(stored: Stored) -> tuple[str, list[Document]]:
            owner = places.owner(stored.nodes.values(), prefix)
            if owner:
                return owner, []
            if name not in stored.nodes:
                raise self._not_registered(name)
            record = stored.nodes[name]
            extra = tuple(sorted((*record.extra, prefix), key=str))
            return name, [self._put_node(stored, replace(record, extra=extra))]

        return self._change(decide)

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        def decide(stored: Stored) -> tuple[None, list[Document]]:
            record = stored.nodes.get(name)
            if record is None or prefix not in record.extra:
                return None, []
            extra = tuple(one for one in record.extra if one != prefix)
            return None, [self._put_node(stored, replace(record, extra=extra))]

        self._change(decide)

    def nodes(self) -> tuple[NodeRecord, ...]:
        stored = self._read()
        return tuple(self._seen(stored, record) for record in stored.nodes.values())

    def remove(self, name: str) -> bool:
        def decide(stored: Stored) -> tuple[bool, list[Document]]:
            if name not in stored.nodes:
                return False, []
            return True, [delete_key(self._key(NODES + name)), delete_key(self._key(ALIVE + name))]

        removed = self._change(decide)
        if lease := self._leases.pop(name, None):
            self._revoke(lease)
        return removed

    def watch(self, stop: threading.Event) -> Iterator[Event]:
        if stop.is_set():
            return
        stored = self._read()
        nodes = stored.nodes
        holders = places.Holders(nodes.values(), where=self._where)
        for record in nodes.values():
            yield Put(self._seen(stored, record))
        yield Synced()
        for events in self._events(stored.revision + 1, stop):
            changed = {
                name: now for name, now in self._changed(events).items() if nodes.get(name) != now
            }
            after = [record for record in changed.values() if record is not None]
            holders.change([nodes[name] for name in changed if name in nodes], after)
            for name in changed.keys() - {record.name for record in after}:
                del nodes[name]
                yield Removed(name)
            for record in after:
                nodes[record.name] = record
                yield Put(replace(record, heartbeat=self.clock()))
            if changed:
                yield Synced()

    # The rest is how.

    @property
    def _where(self) -> str:
        return f"{self.gateway.location}, prefix {self.gateway.location.prefix}"

    def _registration(
        self, stored: Stored, name: str, vtep: IPAddress, identity: str, lease: str
    ) -> tuple[NodeRecord, list[Document]]:
        places.Holders(stored.nodes.values(), where=self._where)
        former = stored.nodes.get(name)
        if former and name in stored.alive and stored.identities[name] != identity:
            raise StoreError(
                f"the node name {name} is in use by another machine with VTEP {former.vtep}, "
                "which is alive",
                hint="give this machine its own node_name; if it replaces the other one, stop that "
                f"and try again in {HEARTBEAT_FRESH:.0f} s",
            )
        for other in stored.nodes.values():
            if other.vtep == vtep and other.name != name:
                state = "alive" if other.name in stored.alive else "silent"
                raise StoreError(
                    f"the VTEP {vtep} of node {name} is already that of node {other.name}, "
                    f"which is {state}",
                    hint=f"set another vtep, or remove node {other.name} if it is gone",
                )
        record = places.place(tuple(stored.nodes.values()), self.cluster, name, vtep)
        changes = [
            put_key(self._key(NODES + name), encode(record, identity)),
            put_key(self._key(ALIVE + name), "", lease=lease),
        ]
        return record, changes

    def _change(self, decide: Callable[[Stored], tuple[T, list[Document]]]) -> T:
        """Do what `decide` makes of the store as it is, if it is still so; else decide anew."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            stored = self._read()
            outcome, changes = decide(stored)
            guard = self._key(PLACES)
            unchanged = {
                "key": guard,
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": str(stored.places_revision),
            }
            if not changes or self._transact([unchanged], [*changes, put_key(guard, "")]):
                return outcome
        raise TryAgain(
            f"{self._where} is busy: others change it all the time",
            details=f"tried for {PATIENCE:g} s",
            hint="try again",
        )

    def _value(self, name: str) -> str | None:
        answer = self.gateway.call("kv/range", {"key": self._key(name)})
        values = [from_base64(pair.get("value", "")) for pair in answer.get("kvs", ())]
        return values[0] if values else None

    def _read(self) -> Stored:
        """All that is below the prefix, at one revision. Raises StoreError, ClusterError."""
        answer = self.gateway.call("kv/range", below(self.gateway.location.prefix))
        revisions: dict[str, int] = {}
        values: dict[str, str] = {}
        for pair in answer.get("kvs", ()):
            key = self._name(pair)
            values[key] = from_base64(pair.get("value", ""))
            revisions[key] = int(pair["mod_revision"])
        self._check_parameters(values.get(CLUSTER))
        documents = {
            key.removeprefix(NODES): self._decode(key, value)
            for key, value in values.items()
            if key.startswith(NODES)
        }
        return Stored(
            revision=int(answer["header"]["revision"]),
            places_revision=revisions.get(PLACES, 0),
            nodes={name: record for name, (record, _) in documents.items()},
            identities={name: identity for name, (_, identity) in documents.items()},
            alive=frozenset(key.removeprefix(ALIVE) for key in values if key.startswith(ALIVE)),
        )

    def _check_parameters(self, text: str | None) -> None:
        if text is None:
            raise StoreError(
                f"there is no cluster in {self._where}",
                hint="run `pycni setup` on a new node to make it; if there was one, etcd has lost "
                "its data: restore it from a snapshot, or tear all nodes down and set them up",
            )
        try:
            parameters = dict(json.loads(text))
        except ValueError as error:
            raise self._foreign(CLUSTER, error) from error
        places.refuse_other_cluster(parameters, self.cluster, where=self._where)

    def _events(self, revision: int, stop: threading.Event) -> Iterator[list[Document]]:
        """Changes below the prefix from a revision on, as they come together."""
        request = below(self.gateway.location.prefix) | {"start_revision": str(revision)}
        for result in self.gateway.stream("watch", {"create_request": request}, stop):
            if int(result.get("compact_revision", 0)):
                raise StoreError(
                    f"{self._where} has forgotten what changed since revision {revision}",
                    hint="nothing to do: the list is read anew",
                )
            if result.get("canceled"):
                raise StoreError(
                    f"{self._where} refuses to be watched: {result.get('cancel_reason', '')}",
                    hint="the user of store needs read permission on the whole prefix",
                )
            yield result.get("events", [])

    def _changed(self, events: Iterable[Document]) -> dict[str, NodeRecord | None]:
        """The nodes in changes of the watch, as they are after all of them; None: removed."""
        changed: dict[str, NodeRecord | None] = {}
        for event in events:
            key = self._name(event["kv"])
            value = event["kv"].get("value", "")
            # what is absent is a PUT, which is 0
            text = None if event.get("type") == "DELETE" else from_base64(value)
            if key == CLUSTER:
                self._check_parameters(text)
            elif key.startswith(NODES):
                name = key.removeprefix(NODES)
                changed[name] = None if text is None else self._decode(key, text)[0]
        return changed

    def _seen(self, stored: Stored, record: NodeRecord) -> NodeRecord:
        lives = record.name in stored.alive
        return replace(record, heartbeat=self.clock() if lives else NEVER)

    def _put_node(self, stored: Stored, record: NodeRecord) -> Document:
        return put_key(
            self._key(NODES + record.name), encode(record, stored.identities[record.name])
        )

    def _decode(self, key: str, text: str) -> tuple[NodeRecord, str]:
        try:
            return decode(key.removeprefix(NODES), text)
        except (ValueError, KeyError, TypeError) as error:
            raise self._foreign(key, error) from error

    def _foreign(self, key: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self.gateway.location.prefix}{key} in {self.gateway.location} is not what pycni "
            f"wrote: {error!r}",
            hint="remove the key with etcdctl if nobody misses it; give pycni a prefix of its own",
        )

    def _not_registered(self, name: str) -> StoreError:
        return StoreError(
            f"the node {name} is not registered in {self._where}", hint="register it again"
        )

    def _grant(self) -> str:
        answer = self.gateway.call("lease/grant", {"TTL": str(round(HEARTBEAT_FRESH))})
        return str(answer["ID"])

    def _keep(self, lease: str) -> bool:
        """Whether a lease runs anew; without its TTL in the answer, it had run out."""
        answer = self.gateway.call("lease/keepalive", {"ID": lease})
        return int(answer["result"].get("TTL", 0)) > 0

    def _revoke(self, lease: str) -> None:
        """As far as it can be: it runs out by itself."""
        with suppress(PycniError):
            self.gateway.call("lease/revoke", {"ID": lease})

    def _transact(self, compare: list[Document], changes: list[Document]) -> bool:
        """Make all changes if all of `compare` holds; whether it did."""
        answer = self.gateway.call("kv/txn", {"compare": compare, "success": changes})
        return bool(answer.get("succeeded"))

    def _key(self, name: str) -> str:
        return to_base64(self.gateway.location.prefix + name)

    def _name(self, pair: Document) -> str:
        return from_base64(pair["key"]).removeprefix(self.gateway.location.prefix)
