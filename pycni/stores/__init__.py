# SPDX-License-Identifier: Apache-2.0
"""The cluster store: which nodes there are, and which pod CIDRs each of them has.

A store has two halves: a registry, where nodes get and give up their places (registry.py), and a
source of node records to follow (source.py). Nothing in a store is believed unchecked: records.py
sets bad records aside, one by one. A store that cannot be read raises an error; it never looks like
a cluster without nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pycni.cluster import Cluster
from pycni.errors import InvalidSettings
from pycni.stores.former import Former
from pycni.stores.identity import machine_identity, machine_instance
from pycni.stores.registry import (
    DIRECT,
    HEARTBEAT_FRESH,
    HEARTBEAT_INTERVAL,
    IPIP,
    ROUTED,
    VXLAN,
    Listing,
    Liveness,
    NodeRecord,
    Reach,
    Registry,
    Rival,
)
from pycni.stores.source import Event, Put, Rejected, Removed, Source, Synced

__all__ = [
    "DIRECT",
    "HEARTBEAT_FRESH",
    "HEARTBEAT_INTERVAL",
    "IPIP",
    "ROUTED",
    "VXLAN",
    "Event",
    "Former",
    "Listing",
    "Liveness",
    "NodeRecord",
    "Put",
    "Reach",
    "Registry",
    "Rejected",
    "Removed",
    "Rival",
    "Source",
    "Store",
    "Synced",
    "check_url",
    "machine_identity",
    "machine_instance",
    "open_store",
    "resync_seconds",
]


RESYNC = 300.0
KUBE_RESYNC = 6 * 3600.0


class Store(Registry, Source[NodeRecord], Protocol):
    """What every kind of store is. Heartbeats alone are no event of the source."""


def check_url(url: str) -> None:
    """Raise InvalidSettings for a URL with which no store can be opened. Opens nothing."""
    kind, _, rest = url.partition(":")
    # Imported here, so that a node imports the client of its own kind of store only.
    if kind in ("etcd", "etcds"):
        from pycni.stores.etcd.location import Location

        Location.parse(url)
        return
    if kind == "kube":
        from pycni.stores.kube.location import Location as KubeLocation

        KubeLocation.parse(url)
        return
    if kind not in ("sqlite", "bgp"):
        raise InvalidSettings(
            f"store = {url!r}: unknown kind of store {kind!r}",
            hint="use 'etcd://HOST:2379', or 'kube:' in a pod of Kubernetes, or "
            "'sqlite:/absolute/path' where all agents share a file system, or 'bgp:' where nodes "
            "know each other by BGP alone, or leave store empty "
            "for a cluster of one machine",
        )
    if not _path(rest).is_absolute():
        raise InvalidSettings(
            f"store = {url!r}: the path is not absolute", hint=f"use '{kind}:/absolute/path'"
        )


def resync_seconds(url: str) -> float:
    """Seconds after which an agent reads a store again from its beginning, in case a watch missed
    something. Kubernetes repeats nothing that was seen, and thousands of agents would read it."""
    return KUBE_RESYNC if url.startswith("kube:") else RESYNC


def open_store(url: str, cluster: Cluster, *, create: bool = True) -> Store:
    """The store at `url`: `sqlite:/absolute/path`, `bgp:/absolute/path`, `etcd://HOST:PORT/PREFIX`
    (etcd/location.py), or `kube:[/KUBECONFIG]` (kube/location.py).

    Made if absent, unless `create` is False. Raises InvalidSettings for an unknown kind of URL,
    ClusterError when the store was made with other cluster parameters, StoreError when it cannot be
    opened.
    """
    check_url(url)
    kind, _, rest = url.partition(":")
    if kind == "kube":
        from pycni.stores.kube import KubeStore

        return KubeStore.open(url, cluster, create=create)
    if kind == "bgp":
        from pycni.stores.bgp import BgpStore

        return BgpStore.open(_path(rest), cluster, create=create)
    if kind != "sqlite":
        from pycni.stores.etcd import EtcdStore

        return EtcdStore.open(url, cluster, create=create)
    from pycni.stores.sqlite import SqliteStore

    return SqliteStore.open(_path(rest), cluster, create=create)


def _path(rest: str) -> Path:
    """The file of an embedded store, by what follows `sqlite:`."""
    return Path(rest.removeprefix("//"))
