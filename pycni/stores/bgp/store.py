# SPDX-License-Identifier: Apache-2.0
"""The store of nodes that share none: each has a file of its own, and others are known by BGP.

This node's place is a row as in the embedded store. What BGP tells of the others, the agent writes
into one more table (`learn`): records by next hop. They were checked before they came there
(bgp/learned.py), so here they are read as they are. A node that boots while no speaker answers has
them from the last time.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import StoreError
from pycni.stores.former import NEW, Former
from pycni.stores.records import write
from pycni.stores.registry import BY_VXLAN, Listing, Liveness, NodeRecord, Reach, Rival
from pycni.stores.source import Event, Put, Removed, Synced
from pycni.stores.sqlite import SqliteStore, connection, schema

POLL_INTERVAL = 0.5
"""Seconds between two looks at `PRAGMA data_version`."""
LEARNED = """
CREATE TABLE IF NOT EXISTS learned (name TEXT PRIMARY KEY, record TEXT NOT NULL)
STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True)
class BgpStore:
    """A `Store`. Any method raises StoreError, or TryAgain while another process writes."""

    own: SqliteStore
    """With this node in it, and no other."""

    @classmethod
    def open(cls, path: Path, cluster: Cluster, *, create: bool = True) -> BgpStore:
        """The store in `path`, made if absent with `create`. Raises ClusterError, StoreError,
        FileError."""
        store = cls(SqliteStore.open(path, cluster, create=create))
        with connection.connect(path, cluster) as db, connection.explained(path):
            db.execute(LEARNED)
        return store

    def learn(self, nodes: Iterable[NodeRecord]) -> bool:
        """These are the other nodes now; whether that is news."""
        wanted = {one.name: json.dumps(write(one, "")) for one in nodes}
        with self._connect() as db:
            have = dict(db.execute("SELECT name, record FROM learned"))
            if have == wanted:
                return False
            with schema.transaction(db):
                db.execute("DELETE FROM learned")
                db.executemany("INSERT INTO learned VALUES (?, ?)", wanted.items())
        return True

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
        return self.own.register(
            name, vtep, identity=identity, instance=instance, reach=reach, had=had
        )

    def keeps(self, _: str, __: Former) -> bool:
        """No one else could have got them from this file."""
        return True

    def heartbeat(self, name: str, *, instance: str = "") -> Rival | None:
        return self.own.heartbeat(name, instance=instance)

    def warnings(self) -> list[str]:
        return []

    def publish(self, name: str, prefix: IPNetwork) -> str:
        holder = next((one for one in self.learned() if _has(one, prefix)), None)
        return holder.name if holder is not None else self.own.publish(name, prefix)

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        self.own.withdraw(name, prefix)

    def blocks(self) -> None:
        """Nodes of this store have their pod CIDRs, and no more."""

    def nodes(self) -> tuple[NodeRecord, ...]:
        return self.listing().nodes

    def listing(self) -> Listing:
        own = self.own.listing()
        learned = self.learned()
        nodes = sorted((*own.nodes, *learned), key=lambda one: one.name)
        # that a speaker tells of a node is all that is known of its life
        alive = dict.fromkeys((one.name for one in learned), Liveness(alive=True))
        return replace(own, nodes=tuple(nodes), liveness={**own.liveness, **alive})

    def remove(self, name: str) -> bool:
        with self._connect() as db, schema.transaction(db):
            gone = db.execute("DELETE FROM learned WHERE name = ?", (name,)).rowcount > 0
        return self.own.remove(name) or gone

    def watch(self, stop: threading.Event) -> Iterator[Event[NodeRecord]]:
        known: dict[str, NodeRecord] = {}
        version: int | None = None
        with self._connect() as db:
            while not stop.is_set():
                latest = schema.pragma(db, "data_version")
                if latest != version:
                    now = {one.name: one for one in self.nodes()}
                    events: list[Event[NodeRecord]] = [
                        Removed(name) for name in known if name not in now
                    ]
                    events += [Put(n, one) for n, one in now.items() if known.get(n) != one]
                    yield from events
                    if events or version is None:
                        yield Synced()
                    known, version = now, latest
                stop.wait(POLL_INTERVAL)
                if not self.own.path.exists():
                    raise StoreError(
                        f"the cluster store {self.own.path} was removed while in use",
                        hint="run: pycni setup",
                    )

    def learned(self) -> list[NodeRecord]:
        """The other nodes, as they were learnt last."""
        with self._connect() as db:
            rows = db.execute("SELECT name, record FROM learned ORDER BY name").fetchall()
        try:
            return [_read(name, json.loads(text)) for name, text in rows]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{self.own.path} holds nodes that nobody can have learnt: {error}",
                hint="tear this node down, remove the file, and set the node up again",
            ) from error

    def _connect(self) -> AbstractContextManager[sqlite3.Connection]:
        return connection.connect(self.own.path, self.own.cluster)


def _read(name: str, document: dict[str, Any]) -> NodeRecord:
    """Raises ValueError, KeyError or TypeError."""
    return NodeRecord(
        name,
        document["node_id"],
        ip_address(document["vtep"]),
        tuple(map(ip_network, document["pod_cidrs"])),
        blocks=tuple(map(ip_network, document.get("blocks", ()))),
        accepts=tuple(document.get("accepts", ()))[1:],  # VXLAN is the first word
    )


def _has(node: NodeRecord, prefix: IPNetwork) -> bool:
    return any(
        prefix.version == one.version and prefix.network_address in one for one in node.networks
    )
