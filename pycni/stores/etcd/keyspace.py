# SPDX-License-Identifier: Apache-2.0
"""What is below the store's prefix in etcd: read at one revision, changed in one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pycni.cluster import Cluster
from pycni.errors import StoreError, TryAgain
from pycni.stores import places
from pycni.stores.etcd.gateway import Gateway
from pycni.stores.etcd.keys import Document, after, below, decode, from_base64, put_key, to_base64
from pycni.stores.records import VALUE_MAX, Raw, printable
from pycni.stores.registry import Rival

CLUSTER, PLACES, NODES, ALIVE = "cluster", "places", "nodes/", "alive/"
RIVALS, SEEN = "rivals/", "seen/"

RIVAL_MAX = 400
"""Base64 digits of a value that says which machine is a node: more than pycni writes, and whole
groups of four."""
TIME_MAX = 2**40
"""Seconds; a time beyond is none."""
PATIENCE = 10.0
"""Seconds for which a change is tried again when others were quicker."""

PAGE = 2000
"""Keys that are read at a time."""

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """What the prefix held at one revision."""

    revision: int
    places_revision: int
    """When `places` was last written; 0: never."""
    records: dict[str, Raw]
    """By node name, unchecked."""
    alive: dict[str, str]
    """Names whose lease runs, and which instance of a machine that is; empty if it does not say."""
    seen: dict[str, float]
    """When a node last said so, roughly: Unix time in seconds."""


@dataclass(frozen=True)
class Keyspace:
    """The keys of one cluster. All raise StoreError, or TryAgain if etcd has no quorum."""

    gateway: Gateway
    cluster: Cluster

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.gateway.location}, prefix {self.gateway.location.prefix}"

    def key(self, name: str) -> str:
        """A key of ours as requests have it."""
        return to_base64(self.gateway.location.prefix + name)

    def name(self, pair: Document) -> str:
        """The undo of `key`, for a key and value of an answer."""
        return from_base64(pair["key"]).removeprefix(self.gateway.location.prefix)

    def value(self, name: str) -> str | None:
        """The value of one key; None if there is none."""
        answer = self.gateway.call("kv/range", {"key": self.key(name)})
        values = [from_base64(pair.get("value", "")) for pair in answer.get("kvs", ())]
        return values[0] if values else None

    def read(self) -> Snapshot:
        """Everything. Raises ClusterError as well, if it is another cluster's."""
        cluster: Document | None = None
        revision = places_revision = 0
        records: dict[str, Raw] = {}
        alive: dict[str, str] = {}
        seen: dict[str, float] = {}
        for at, pairs in self._pages():
            revision = at
            for pair in pairs:
                key = self.name(pair)
                if key == CLUSTER:
                    cluster = pair
                elif key == PLACES:
                    places_revision = int(pair["mod_revision"])
                elif key.startswith(NODES):
                    records[key.removeprefix(NODES)] = raw(pair)
                elif key.startswith(ALIVE):
                    alive[key.removeprefix(ALIVE)] = read_rival(pair).instance
                elif key.startswith(SEEN) and (time := read_time(pair)):
                    seen[key.removeprefix(SEEN)] = time
        self.check_parameters(from_base64(cluster.get("value", "")) if cluster else None)
        return Snapshot(revision, places_revision, records, alive, seen)

    def _pages(self) -> Iterator[tuple[int, list[Document]]]:
        """All keys and values, some at a time, as they were at one revision."""
        request = below(self.gateway.location.prefix) | {"limit": PAGE}
        while True:
            answer = self.gateway.call("kv/range", request)
            revision = request.setdefault("revision", answer["header"]["revision"])
            pairs = answer.get("kvs", [])
            yield int(revision), pairs
            if not answer.get("more"):
                return
            request["key"] = after(pairs[-1]["key"])

    def change(
        self,
        decide: Callable[[Snapshot], tuple[T, list[Document]]],
        *,
        read: Callable[[], Snapshot | None] = lambda: None,
    ) -> T:
        """Do what `decide` makes of the snapshot, if nothing has changed since; else decide anew.

        `read` may give a snapshot of before. Returns the first of what `decide` returned. Raises
        TryAgain when others are always quicker.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            snapshot = read() or self.read()
            outcome, changes = decide(snapshot)
            guard = self.key(PLACES)
            unchanged = {
                "key": guard,
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": str(snapshot.places_revision),
            }
            if not changes or self.transact([unchanged], [*changes, put_key(guard, "")]):
                return outcome
        raise TryAgain(
            f"{self.where} is busy: others change it all the time",
            details=f"tried for {PATIENCE:g} s",
            hint="try again",
        )

    def transact(self, compare: list[Document], changes: list[Document]) -> bool:
        """Make all changes if all of `compare` holds; whether it did."""
        return self.ask(compare, changes, [])[0]

    def ask(
        self, compare: list[Document], then: list[Document], otherwise: list[Document]
    ) -> tuple[bool, list[Document]]:
        """Do `then` if all of `compare` holds, else `otherwise`; whether it did, and the keys and
        values that were asked for."""
        request = {"compare": compare, "success": then, "failure": otherwise}
        answer = self.gateway.call("kv/txn", request)
        ranges = [one.get("response_range", {}) for one in answer.get("responses", ())]
        return bool(answer.get("succeeded")), [pair for r in ranges for pair in r.get("kvs", ())]

    def check_parameters(self, text: str | None) -> None:
        """Raise StoreError if there is no cluster, ClusterError if it has other parameters."""
        if text is None:
            raise StoreError(
                f"there is no cluster in {self.where}",
                hint="run `pycni setup` on a new node to make it; if there was one, etcd has lost "
                "its data: restore it from a snapshot, or tear all nodes down and set them up",
            )
        parameters = decode(text)
        if not isinstance(parameters, dict):
            raise StoreError(
                f"{self.gateway.location.prefix}{CLUSTER} in {self.gateway.location} is not what "
                "pycni wrote: it is not a JSON object",
                hint="restore the key, or give pycni a prefix of its own in store",
            )
        places.refuse_other_cluster(parameters, self.cluster, where=self.where)


def raw(pair: Document) -> Raw:
    """The key and value of a node as an unchecked record. etcd says who was there first."""
    value, order = pair.get("value", ""), int(pair["create_revision"])
    size = len(value) * 3 // 4
    return (
        Raw.too_large(size, order) if size > VALUE_MAX else Raw(decode(from_base64(value)), order)
    )


def write_rival(rival: Rival) -> str:
    """The value of a key that says which machine is a node, or wants to be."""
    return json.dumps({"instance": rival.instance, "vtep": rival.vtep})


def read_rival(pair: Document) -> Rival:
    """The undo; empty where somebody else wrote something else."""
    found = decode(from_base64(pair.get("value", "")[:RIVAL_MAX]))
    fields = found if isinstance(found, dict) else {}
    return Rival(*(printable(str(fields.get(field, ""))) for field in ("instance", "vtep")))


def read_time(pair: Document) -> float:
    """A Unix time in seconds; 0 for what is none."""
    found = decode(from_base64(pair.get("value", "")[:RIVAL_MAX]))
    return float(found) if isinstance(found, int) and 0 < found < TIME_MAX else 0.0
