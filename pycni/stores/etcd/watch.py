# SPDX-License-Identifier: Apache-2.0
"""How the records of nodes change in etcd, batch by batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pycni.errors import StoreError
from pycni.stores.etcd.keys import Document, between, from_base64
from pycni.stores.etcd.keyspace import CLUSTER, NODES, Keyspace, raw
from pycni.stores.records import Raw


def changes(
    keyspace: Keyspace, revision: int, stop: threading.Event
) -> Iterator[dict[str, Raw | None]]:
    """Records that changed from a revision on, as they are after each batch; None: removed.

    A batch may have no record. Ends when `stop` is set. Raises StoreError when the stream ends, and
    ClusterError or StoreError when the cluster changes or goes.
    """
    for events in _events(keyspace, revision, stop):
        changed: dict[str, Raw | None] = {}
        for event in events:
            pair = event["kv"]
            key = keyspace.name(pair)
            is_gone = event.get("type") == "DELETE"  # PUT is 0, and so left out
            if key == CLUSTER:
                keyspace.check_parameters(None if is_gone else from_base64(pair.get("value", "")))
            elif key.startswith(NODES):
                changed[key.removeprefix(NODES)] = None if is_gone else raw(pair)
        yield changed


def _events(keyspace: Keyspace, revision: int, stop: threading.Event) -> Iterator[list[Document]]:
    """Changes of the cluster's parameters and of nodes, as they come together.

    The range leaves out the keys that change while no record does: heartbeats would wake all
    agents.
    """
    gateway = keyspace.gateway
    prefix = gateway.location.prefix
    keys = between(prefix + CLUSTER, prefix + NODES[:-1] + chr(ord(NODES[-1]) + 1))
    request = keys | {"start_revision": str(revision)}
    for result in gateway.stream("watch", {"create_request": request}, stop):
        if int(result.get("compact_revision", 0)):
            raise StoreError(
                f"{keyspace.where} has forgotten what changed since revision {revision}",
                hint="nothing to do: the list is read anew",
            )
        if result.get("canceled"):
            raise StoreError(
                f"{keyspace.where} refuses to be watched: {result.get('cancel_reason', '')}",
                hint="the user of store needs read permission on the whole prefix",
            )
        yield result.get("events", [])
