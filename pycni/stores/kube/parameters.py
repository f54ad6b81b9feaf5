# SPDX-License-Identifier: Apache-2.0
"""The ClusterNetwork `default`: what all nodes of a cluster agree on."""

from __future__ import annotations

import json

from pycni.cluster import Cluster
from pycni.errors import StoreError
from pycni.stores import places
from pycni.stores.kube import objects
from pycni.stores.kube.client import CONFLICT, FORBIDDEN, JSON, NOT_FOUND, Client
from pycni.stores.kube.connection import Request
from pycni.stores.kube.objects import CLUSTER_NETWORK, CLUSTER_NETWORKS
from pycni.stores.records import printable

NODE, POOL = "node", "pool"
"""Where nodes have their pod CIDRs from: their Node, or blocks of IPPools."""


def check(client: Client, cluster: Cluster, *, create: bool) -> str:
    """Where nodes have their pod CIDRs from. Raises ClusterError if the cluster has other
    parameters, StoreError if there is none, or it is of a version that this one does not know.

    With `create` it is made; agents may not, by their RBAC: there the manifest has it.
    """
    document = client.get(CLUSTER_NETWORK)
    if document is None and create:
        body = json.dumps(objects.cluster_network(cluster)).encode()
        request = Request("POST", CLUSTER_NETWORKS, body, {"Content-Type": JSON})
        client.call(request, accept=(CONFLICT, FORBIDDEN, NOT_FOUND))
        document = client.get(CLUSTER_NETWORK)
    if document is None:
        raise StoreError(
            f"there is no ClusterNetwork default in {client.where}",
            hint="apply deploy/kubernetes/crds.yaml, then pycni.yaml; or run `pycni setup` once "
            "with a kubeconfig that may make it",
        )
    found = objects.read_parameters(document)
    places.refuse_other_cluster(found, cluster, where=client.where)
    source = objects.fields(document.get("spec")).get("ipam", NODE)
    if source not in (NODE, POOL):
        raise StoreError(
            f"the ClusterNetwork default says ipam: {printable(str(source))}, which this version "
            "of pycni does not know",
            hint="use a version that does, or make the cluster with ipam: node or pool",
        )
    return str(source)
