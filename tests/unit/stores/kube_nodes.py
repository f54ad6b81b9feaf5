# SPDX-License-Identifier: Apache-2.0
"""What kubelets and the controller manager do to a fake API server: Nodes, pod CIDRs, leases."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import count
from typing import Any

from unit.stores.kube_api import CLUSTER_NETWORKS, LEASES, NODES, Api

OLD = 1000.0
"""Seconds: the age of the lease of a node that is silent."""


@dataclass
class Nodes:
    """Gives each Node that is asked for pod CIDRs, and a lease; a fresh one unless it is silent."""

    api: Api
    silent: set[str] = field(default_factory=set)

    def make(self, name: str) -> None:
        """A kubelet registers, if there is no Node of that name."""
        self.renew(name)
        with self.api.objects.changed:
            if self.api.objects.get(NODES, name) is None:
                self.put(name, *self._free())

    def put(self, name: str, *cidrs: str, boot: str = "another boot") -> None:
        """A Node with these pod CIDRs."""
        spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
        status = {"nodeInfo": {"bootID": boot}}
        self.api.objects.put(NODES, name, {"kind": "Node", "spec": spec, "status": status})

    def silence(self, name: str) -> None:
        """The kubelet gives no sign any more."""
        self.silent.add(name)
        self.renew(name)

    def renew(self, name: str) -> None:
        """The kubelet gives a sign; an old one if it is silent."""
        when = self.api.clock() - (OLD if name in self.silent else 0.0)
        renewed = f"{datetime.fromtimestamp(when, UTC):%FT%T.%fZ}"
        spec = {"leaseDurationSeconds": 40, "renewTime": renewed}
        self.api.objects.put(LEASES, name, {"kind": "Lease", "spec": spec})

    def _free(self) -> list[str]:
        """The first pod CIDR of each family that no Node has, as RangeAllocator gives them."""
        network = self.api.objects.get(CLUSTER_NETWORKS, "default")
        assert network is not None
        taken = {cidr for node in self.api.objects.list(NODES) for cidr in node["spec"]["podCIDRs"]}
        return [self._first(network["spec"], whole, taken) for whole in network["spec"]["cidrs"]]

    @staticmethod
    def _first(spec: dict[str, Any], whole: str, taken: set[str]) -> str:
        cidr = ip_network(whole)
        length = spec["nodePrefix"][f"ipv{cidr.version}"]
        size = 1 << (cidr.max_prefixlen - length)
        parts = (f"{cidr.network_address + number * size}/{length}" for number in count())
        return next(part for part in parts if part not in taken)
