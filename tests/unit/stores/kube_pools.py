# SPDX-License-Identifier: Apache-2.0
"""A cluster with IPPools in a fake API server."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from pycni.cluster import IPNetwork
from pycni.stores.kube import KubeStore, objects
from pycni.stores.kube.pooling import Pooling
from unit.stores.kube_api import CLUSTER_NETWORKS, IP_POOLS, NODE_NETWORKS, NODES, POD_BLOCKS, Api
from unit.stores.kube_schemas import problem
from unit.stores.stores_in_tests import CLUSTER


@dataclass
class Pooled:
    """What an administrator does there, and what there is."""

    api: Api

    def cluster(self) -> None:
        """The ClusterNetwork says ipam: pool."""
        document = objects.cluster_network(CLUSTER)
        spec = objects.fields(document["spec"]) | {"ipam": "pool"}
        self.put(CLUSTER_NETWORKS, "default", document | {"spec": spec})

    def pool(self, name: str, cidr: str, **spec: Any) -> None:
        """An IPPool."""
        document = {"apiVersion": objects.API_VERSION, "kind": "IPPool", "metadata": {"name": name},
                    "spec": {"cidr": cidr, **spec}}  # fmt: skip
        self.put(IP_POOLS, name, document)

    def put(self, path: str, name: str, document: dict[str, Any]) -> None:
        assert problem(path, document) == ""
        self.api.objects.put(path, name, document)

    def node(self, name: str, **labels: str) -> str:
        """A Node without pod CIDRs; returns its UID. Another one if there was one."""
        if self.api.objects.get(NODES, name) is not None:
            self.api.objects.delete(NODES, name)
        document = {"kind": "Node", "metadata": {"labels": labels}, "spec": {}, "status": {}}
        made = self.api.objects.put(NODES, name, document)
        return str(made["metadata"]["uid"])

    def collect_garbage(self) -> None:
        """As the garbage collector: what a Node owned that is gone."""
        alive = {node["metadata"]["uid"] for node in self.api.objects.list(NODES)}
        for path in (NODE_NETWORKS, POD_BLOCKS):
            for document in self.api.objects.list(path):
                if objects.owner_uid(document) not in alive:
                    self.api.objects.delete(path, document["metadata"]["name"])

    def claims(self) -> dict[IPNetwork, str]:
        """Who has claimed what."""
        return {ip_network(one["spec"]["cidr"]): one["spec"]["node"]
                for one in self.api.objects.list(POD_BLOCKS)}  # fmt: skip


def pooling(store: KubeStore) -> Pooling:
    found = store.blocks()
    assert isinstance(found, Pooling)
    return found
