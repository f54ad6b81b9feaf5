# SPDX-License-Identifier: Apache-2.0
"""Whether there is a store at a URL already, asked before one is made."""

from __future__ import annotations

from pathlib import Path

from pycni.cluster import Cluster


def what_is_missing(url: str, cluster: Cluster) -> str:
    """What `open_store` would have to make at `url`, in words; empty if there is a store.

    Raises StoreError or InvalidSettings if that cannot be known.
    """
    kind, _, rest = url.partition(":")
    if kind in ("etcd", "etcds"):
        return _etcd(url, cluster)
    if kind == "kube":
        return _kube(url)
    if kind != "sqlite":  # one of BGP is always this node's own; open_store says what is wrong
        return ""
    path = Path(rest.removeprefix("//"))
    if path.exists():
        return ""
    if not path.parent.exists():
        return f"there is no directory {path.parent} for the store {path}"
    return f"there is no store {path}"


def _etcd(url: str, cluster: Cluster) -> str:
    from pycni.stores.etcd.gateway import Gateway
    from pycni.stores.etcd.keyspace import CLUSTER, Keyspace
    from pycni.stores.etcd.location import Location

    keyspace = Keyspace(Gateway(Location.parse(url)), cluster)
    if keyspace.value(CLUSTER) is not None:
        return ""
    return f"there is no cluster in {keyspace.where}"


def _kube(url: str) -> str:
    from pycni.stores.kube import access
    from pycni.stores.kube.client import Client
    from pycni.stores.kube.location import Location
    from pycni.stores.kube.objects import CLUSTER_NETWORK

    client = Client(access.find(Location.parse(url)))
    if client.get(CLUSTER_NETWORK) is not None:
        return ""
    return f"there is no ClusterNetwork default in {client.where}"
