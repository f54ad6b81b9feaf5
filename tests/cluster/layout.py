# SPDX-License-Identifier: Apache-2.0
"""Names, addresses and places of a cluster; pure.

Its machines are those of a lab (pycni/lab/layout.py) and two more: the control plane, and a client
outside of the cluster.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from pycni.errors import PycniError
from pycni.lab import layout
from pycni.lab.layout import UNDERLAY4, UNDERLAY6, LabNode, Layout
from pycni.settings import DEFAULT_CLUSTER_CIDRS, NodePrefix

NODES_LIMIT = 20
NAME = re.compile("[a-z]([a-z0-9-]{0,22}[a-z0-9])?")
"""Small letters: machines have it in their names, and Kubernetes wants them so (RFC 1123)."""

CONTROL, CLIENT = "control", "client"
NUMBERS = {CONTROL: 250, CLIENT: 251}
"""The last part of their underlay addresses."""

KUBE_PROXY_MODES = ("nftables", "iptables", "none")

PODS = ",".join(map(str, DEFAULT_CLUSTER_CIDRS))
NODE_PREFIX = NodePrefix().model_dump()
"""Length of a node's pod CIDR, by `ipv4` and `ipv6`."""
SERVICES = "10.96.0.0/16,fd00:10:96::/112"
API_SERVICE = ("10.96.0.1", "fd00:10:96::1")
"""Of the Service `kubernetes`: the first address of each range."""
DNS_SERVICE = "10.96.0.10"
DNS_DOMAIN = "cluster.local"

API_PORT = 6443
ETCD_PORT = 2379
CONTROL_TAINT = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True)
class Cluster:
    """What was asked for. Everything of a cluster is in `directory` or has `name` in its name."""

    name: str
    nodes: int
    kube_proxy: str
    kubernetes: str
    base: Path
    containerd: str = ""
    """Its version; empty for Debian's."""
    encap: str = ""
    """How packets travel between nodes, as in pycni's settings; empty: as the release has it."""

    @property
    def directory(self) -> Path:
        return self.base / self.name

    @property
    def keys(self) -> Path:
        """Certificates, keys, tokens and kubeconfig files."""
        return self.directory / "keys"

    @cached_property
    def layout(self) -> Layout:
        """As the lab's topology takes it."""
        lab = layout.draw(self.name, nodes=self.nodes, pods=0, base=self.base)
        return replace(lab, nodes=(self.control, *lab.nodes, self.client))

    @property
    def workers(self) -> tuple[LabNode, ...]:
        """The nodes that pods of others run on."""
        return self.layout.nodes[1:-1]

    @property
    def machines(self) -> tuple[LabNode, ...]:
        """The nodes of Kubernetes, the control plane first. The client is a network only."""
        return self.layout.nodes[:-1]

    @property
    def control(self) -> LabNode:
        return self._machine(CONTROL)

    @property
    def client(self) -> LabNode:
        return self._machine(CLIENT)

    @property
    def api(self) -> str:
        """The URL of the API server."""
        return f"https://{address(self.control)}:{API_PORT}"

    def cgroup(self, node: LabNode) -> str:
        """Of a node's pods: two kubelets of one machine must not have the same."""
        return node.netns

    def _machine(self, name: str) -> LabNode:
        number = NUMBERS[name]
        return LabNode(
            name=name,
            netns=f"{self.name}-{name}",
            port=name,
            underlay=(
                IPv4Interface(f"{UNDERLAY4.network.network_address + number}/24"),
                IPv6Interface(f"{UNDERLAY6.network.network_address + number}/64"),
            ),
            directory=self.directory / name,
            pods=(),
        )


def check(cluster: Cluster) -> None:
    """Raises PycniError for a name or a number that cannot be."""
    if not NAME.fullmatch(cluster.name):
        raise PycniError(
            f"a cluster cannot have the name {cluster.name!r}",
            hint="use a small letter, then small letters, digits and '-', 24 in all",
        )
    if not 1 <= cluster.nodes <= NODES_LIMIT:
        raise PycniError(
            f"a cluster has from 1 to {NODES_LIMIT} nodes, not {cluster.nodes}",
            hint="give another --nodes",
        )


def address(node: LabNode) -> str:
    """A machine's IPv4 address in the underlay."""
    return str(node.underlay[0].ip)


def addresses(node: LabNode) -> list[str]:
    """A machine's addresses in the underlay, IPv4 first."""
    return [str(one.ip) for one in node.underlay]
