# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes store: nodes of a cluster, in the API of the Kubernetes that they are nodes of.

    ClusterNetwork default    the parameters all nodes agree on; without it there is no cluster here
    NodeNetwork NAME          a record, of the Node of that name, which owns it
    PodBlock CIDR             the claim of a node to a network; here to addresses that it publishes

Pod CIDRs are those that Kubernetes gives to Nodes. There is no operator: what is atomic is done by
creating objects, what is cleaned up by the garbage collector, what nodes may do is said by RBAC and
an admission policy (deploy/kubernetes). Agents watch NodeNetworks, which change when places change.
"""

from __future__ import annotations

from pycni.stores.kube.store import KubeStore

__all__ = ["KubeStore"]
