# SPDX-License-Identifier: Apache-2.0
"""The Node object of this node: its UID, and the pod CIDRs that Kubernetes gave it.

No other Node is ever read: Nodes are large and change all the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from urllib.parse import quote

from pycni.cluster import Cluster, IPNetwork
from pycni.errors import ClusterError, PlaceLost
from pycni.stores.kube import objects
from pycni.stores.kube.client import Client, jittered
from pycni.stores.records import printable

WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between tries: Kubernetes gives a new node its CIDRs within a second or so."""


@dataclass(frozen=True)
class KubeNode:
    """What counts of a Node."""

    name: str
    uid: str
    boot_id: str
    """Of the machine whose kubelet runs as this Node."""
    cidrs: tuple[str, ...]
    """As Kubernetes has them."""
    labels: Mapping[str, str]


def find(client: Client, name: str) -> KubeNode | None:
    """The Node of that name, if there is one. Raises StoreError."""
    document = client.get(f"/api/v1/nodes/{quote(name, safe='')}")
    if document is None:
        return None
    spec, status = objects.fields(document.get("spec")), objects.fields(document.get("status"))
    cidrs = spec.get("podCIDRs")
    labels = objects.fields(objects.metadata(document).get("labels"))
    return KubeNode(
        name=name,
        uid=objects.text(objects.metadata(document), "uid"),
        boot_id=objects.text(objects.fields(status.get("nodeInfo")), "bootID"),
        cidrs=tuple(map(str, cidrs)) if isinstance(cidrs, list) else (),
        labels={key: str(value) for key, value in labels.items()},
    )


def with_cidrs(client: Client, name: str, waits: Iterable[float]) -> KubeNode:
    """The Node of that name, once it has pod CIDRs. Raises PlaceLost if it gets none within that
    many tries, `waits` in seconds between them."""
    for wait in (*waits, None):
        node = find(client, name)
        if node is not None and node.cidrs:
            return node
        if wait is not None:
            time.sleep(jittered(wait / 2))
    if node is None:
        raise _absent(client, name)
    raise PlaceLost(
        f"Kubernetes gave the Node {name} no pod CIDR",
        hint="run kube-controller-manager with --allocate-node-cidrs=true and --cluster-cidr",
    )


def present(client: Client, name: str, waits: Iterable[float]) -> KubeNode:
    """The Node of that name, once it is there. Raises PlaceLost if it does not come; `waits` as
    above."""
    for wait in (*waits, None):
        if (node := find(client, name)) is not None:
            return node
        if wait is not None:
            time.sleep(jittered(wait / 2))
    raise _absent(client, name)


def pod_cidrs(node: KubeNode, cluster: Cluster) -> tuple[IPNetwork, ...]:
    """A Node's pod CIDRs, IPv4 first. Raises ClusterError if they are not of this cluster."""
    found: dict[int, IPNetwork] = {}
    for text in node.cidrs:
        try:
            cidr = ip_network(text)
        except ValueError:
            raise _wrong(node, f"{printable(text)} is no network") from None
        whole = next((one for one in cluster.cidrs if one.version == cidr.version), None)
        if whole is None or cidr.network_address not in whole:
            raise _wrong(node, f"{cidr} is not in cluster_cidrs, {_join(cluster.cidrs)}")
        length = cluster.node_prefix(cidr.version)
        if cidr.prefixlen != length:
            raise _wrong(node, f"{cidr} is not a /{length}, as node_prefix says")
        found[cidr.version] = cidr
    missing = [one for one in cluster.cidrs if one.version not in found]
    if missing:
        raise _wrong(node, f"none of {_join(node.cidrs)} is in {missing[0]}")
    return tuple(found[version] for version in sorted(found))


def _absent(client: Client, name: str) -> PlaceLost:
    return PlaceLost(
        f"{client.where} has no Node {name}",
        hint="node_name must be the name of the Node, which kubelet makes: kubectl get nodes",
    )


def _join(values: tuple[object, ...]) -> str:
    return ", ".join(map(str, values))


def _wrong(node: KubeNode, problem: str) -> ClusterError:
    return ClusterError(
        f"the pod CIDRs of the Node {node.name} are not of this cluster: {problem}",
        hint="give cluster_cidrs and node_prefix the values of kube-controller-manager's "
        "--cluster-cidr and --node-cidr-mask-size-ipv4/-ipv6, on all nodes",
    )
