# SPDX-License-Identifier: Apache-2.0
"""Who there is in a test's Kubernetes: Nodes with leases, and the pods of their agents."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.waiting import until
from kube.control import Control
from pycni.cluster import Cluster
from pycni.stores.kube import KubeStore
from pycni.stores.kube.client import CONFLICT, JSON, MERGE, Client
from pycni.stores.kube.connection import Request
from pycni.stores.kube.leases import LEASES
from pycni.stores.kube.objects import API_VERSION, IP_POOLS
from unit.stores.stores_in_tests import CLUSTER

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/kube-system/pods"
TOKENS = "/api/v1/namespaces/kube-system/serviceaccounts/pycni/token"


def send(client: Client, method: str, path: str, document: object) -> dict[str, Any]:
    """A request with a body; its answer. Raises StoreError."""
    body = json.dumps(document).encode()
    kind = MERGE if method == "PATCH" else JSON
    request = Request(method, path, body, {"Content-Type": kind})
    return dict(client.call(request, accept=(CONFLICT,)).document)


class People:
    """Made by the administrator."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.admin = control.admin

    def node(self, name: str) -> dict[str, Any]:
        """A Node with pod CIDRs and a fresh lease, as its kubelet makes them."""
        send(self.admin, "POST", NODES, {"kind": "Node", "apiVersion": "v1",
                                         "metadata": {"name": name}})  # fmt: skip
        found: dict[str, Any] = {}

        def has_cidrs() -> bool:
            found.update(self.admin.get(f"{NODES}/{name}") or {})
            return "podCIDRs" in found.get("spec", {})

        until(has_cidrs, f"{name} has pod CIDRs", 30.0)
        self.renew(name)
        return found

    def renew(self, name: str, *, age: float = 0.0) -> None:
        """A sign of the kubelet, so many seconds ago."""
        when = datetime.fromtimestamp(time.time() - age, UTC)
        spec = {"leaseDurationSeconds": 40, "renewTime": f"{when:%FT%T.%fZ}"}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                 "metadata": {"name": name}, "spec": spec}  # fmt: skip
        if self.admin.get(f"{LEASES}/{name}") is None:
            send(self.admin, "POST", LEASES, lease)
        else:
            send(self.admin, "PATCH", f"{LEASES}/{name}", lease)

    def pod(self, node: str) -> str:
        """A pod of the agent on a Node; returns its name."""
        made = send(self.admin, "POST", PODS, {
            "kind": "Pod", "apiVersion": "v1", "metadata": {"generateName": "pycni-"},
            "spec": {
                "nodeName": node,
                "serviceAccountName": "pycni",
                "automountServiceAccountToken": False,
                "containers": [{"name": "agent", "image": "agent"}],
            },
        })  # fmt: skip
        return str(made["metadata"]["name"])

    def token(self, pod: str = "", *, seconds: int = 600) -> str:
        """A token of the agents' service account, bound to a pod, or to nothing."""
        spec: dict[str, Any] = {"expirationSeconds": seconds}
        if pod:
            head = (self.admin.get(f"{PODS}/{pod}") or {})["metadata"]
            assert isinstance(head, dict)
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod,
                                      "uid": head["uid"]}  # fmt: skip
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(send(self.admin, "POST", TOKENS, request)["status"]["token"])

    def agent(self, node: str, cluster: Cluster = CLUSTER) -> KubeStore:
        """The store as the agent of a Node has it."""
        self.node(node)
        return self.store(self.token(self.pod(node)), cluster)

    def store(self, token: str, cluster: Cluster = CLUSTER, *, pooled: bool = False) -> KubeStore:
        """The store with a token; `pooled`: as if the ClusterNetwork said ipam: pool."""
        return KubeStore(Client(self.control.access(token=token)), cluster, pooled=pooled)

    def pool(self, name: str, cidr: str, **spec: Any) -> dict[str, Any]:
        """An IPPool. Raises StoreError if the server refuses it."""
        return send(self.admin, "POST", IP_POOLS, {
            "kind": "IPPool", "apiVersion": API_VERSION, "metadata": {"name": name},
            "spec": {"cidr": cidr, **spec},
        })  # fmt: skip

    def made_anew(self, name: str) -> str:
        """The Node goes, and one of its name comes; a token of the new agent's pod."""
        self.admin.delete(f"{NODES}/{name}")
        self.node(name)
        return self.token(self.pod(name))

    def store_by_file(self, token_file: Path) -> KubeStore:
        """The store with a token that is read for each request."""
        return KubeStore(Client(self.control.access(token_file=token_file)), CLUSTER)

    def delete_all(self) -> None:
        """What a test made."""
        for resource in ("nodenetworks", "podblocks", "ippools"):
            self.control.kubectl("delete", resource, "--all", "--wait=false")
        self.control.kubectl("delete", "pods", "-n", "kube-system", "--all", "--force",
                             "--grace-period=0", "--wait=false")  # fmt: skip
        self.control.kubectl("delete", "nodes", "--all", "--wait=true", "--timeout=30s")
        self.control.kubectl("delete", "leases", "-n", "kube-node-lease", "--all")
