# SPDX-License-Identifier: Apache-2.0
"""The ClusterNetwork `default`: what all nodes of a cluster agree on."""

from __future__ import annotations

from pycni.cluster import Cluster
from pycni.errors import StoreError
from pycni.stores import places
from pycni.stores.kube import objects
from pycni.stores.kube.client import Client
from pycni.stores.kube.objects import CLUSTER_NETWORK, CLUSTER_NETWORKS


def check(client: Client, cluster: Cluster, *, create: bool) -> None:
    """Raise ClusterError if the cluster has other parameters, StoreError if there is none.

    With `create` it is made; agents may not, by their RBAC: there the manifest has it.
    """
    document = client.get(CLUSTER_NETWORK)
    if document is None and create:
        client.create(CLUSTER_NETWORKS, objects.cluster_network(cluster))
        document = client.get(CLUSTER_NETWORK)
    if document is None:
        raise StoreError(
            f"there is no ClusterNetwork default in {client.where}",
            hint="apply deploy/kubernetes, or run `pycni setup` once with a kubeconfig that may "
            "make it",
        )
    found = objects.read_parameters(document)
    places.refuse_other_cluster(found, cluster, where=client.where)
