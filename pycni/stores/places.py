"""Who gets which place in the cluster: parameters all nodes share, node ids, pod CIDRs, prefixes.

Pure: decides over the records a store has read; every kind of store decides by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

from pycni.cluster import (
    Cluster,
    IPAddress,
    IPNetwork,
    node_capacity,
)
from pycni.errors import ClusterError, StoreError
from pycni.stores import NodeRecord


def parameters(cluster: Cluster) -> dict[str, str]:
    """What all nodes must agree on, as text."""
    found = {"vni": str(cluster.vni), "port": str(cluster.port)}
    for cidr in cluster.cidrs:
        found[f"cluster_cidr.ipv{cidr.version}"] = str(cidr)
        found[f"node_prefix.ipv{cidr.version}"] = str(cluster.node_prefix(cidr.version))
    return found


def refuse_other_cluster(stored: Mapping[str, str], cluster: Cluster, *, where: str) -> None:
    """Raise ClusterError, with both values of each, if `where` was made with other parameters."""
    wanted = parameters(cluster)
    differences = [
        f"{key} is {stored.get(key, 'absent')} in the store and {wanted.get(key, 'absent')} here"
        for key in sorted(stored.keys() | wanted.keys())
        if stored.get(key) != wanted.get(key)
    ]
    if differences:
        raise ClusterError(
            f"{where} belongs to a cluster with other parameters: {'; '.join(differences)}",
            hint="give this node the store's parameters; to change them for the whole cluster, "
            "tear all nodes down and remove the store",
        )


def place(
    records: Sequence[NodeRecord], cluster: Cluster, name: str, vtep: IPAddress
) -> NodeRecord:
    """The record of a node that registers: its own with the new VTEP, or one with what is free.

    Raises StoreError if all pod CIDRs are taken.
    """
    for record in records:
        if record.name == name:
            return replace(record, vtep=vtep)
    return NodeRecord(
        name=name,
        node_id=first_free_id(record.node_id for record in records),
        vtep=vtep,
        pod_cidrs=tuple(_first_free_cidr(cidr, cluster, records) for cidr in _by_family(cluster)),
        heartbeat=0.0,
    )


def owner(records: Iterable[NodeRecord], prefix: IPNetwork) -> str:
    """Name of the node that published a prefix or has a part of it; empty if none has."""
    known = list(records)
    for record in known:
        if prefix in record.extra:
            return record.name
    for record in known:
        for cidr in record.pod_cidrs:
            if cidr.version == prefix.version and cidr.overlaps(prefix):
                return record.name
    return ""


class Holders:
    """Which node has which pod CIDR, prefix, VTEP and id, as records come and go.

    Two nodes with one of them are not by our doing. `where` is for the message about it.
    """

    def __init__(self, records: Iterable[NodeRecord], *, where: str) -> None:
        self._where = where
        self._names: dict[tuple[str, object], str] = {}
        self.change((), records)

    def change(self, before: Iterable[NodeRecord], after: Iterable[NodeRecord]) -> None:
        """Take out records as they were, put them in as they are. Raises StoreError."""
        for record in before:
            for held in _held(record):
                self._names.pop(held, None)
        for record in after:
            for kind, value in _held(record):
                other = self._names.setdefault((kind, value), record.name)
                if other != record.name:
                    raise StoreError(
                        f"the nodes {other} and {record.name} have the same {kind} {value} in "
                        f"{self._where}",
                        hint="stop one of them, then `pycni forget` it; somebody wrote into "
                        f"{self._where}",
                    )


def first_free_id(taken: Iterable[int]) -> int:
    numbers = set(taken)
    return next(number for number in range(1, len(numbers) + 2) if number not in numbers)


def _held(record: NodeRecord) -> list[tuple[str, object]]:
    prefixes = [("prefix", one) for one in (*record.pod_cidrs, *record.extra)]
    return [("VTEP", record.vtep), ("id", record.node_id), *prefixes]


def _by_family(cluster: Cluster) -> list[IPNetwork]:
    return sorted(cluster.cidrs, key=lambda cidr: cidr.version)


def _first_free_cidr(cidr: IPNetwork, cluster: Cluster, records: Iterable[NodeRecord]) -> IPNetwork:
    """The first part of a cluster CIDR that no node has, nor has published an address of."""
    length = cluster.node_prefix(cidr.version)
    taken: set[IPNetwork] = set()
    for record in records:
        taken.update(one for one in record.pod_cidrs if one.version == cidr.version)
        taken.update(
            one.supernet(new_prefix=length)
            for one in record.extra
            if one.version == cidr.version and one.network_address in cidr
        )
    capacity = node_capacity(cidr, length)
    if len(taken) >= capacity:
        raise StoreError(
            f"no free pod CIDR: {cidr} cut into /{length} is enough for {capacity} nodes, "
            f"and there are {len(taken)}",
            hint="remove nodes that are gone, or build the cluster with larger cluster_cidrs",
        )
    candidates = (_part(cidr, length, index) for index in range(len(taken) + 1))
    return next(candidate for candidate in candidates if candidate not in taken)


def _part(cidr: IPNetwork, length: int, index: int) -> IPNetwork:
    size = 1 << (cidr.max_prefixlen - length)
    return ip_network((cidr.network_address + index * size, length))
