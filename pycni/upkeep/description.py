# SPDX-License-Identifier: Apache-2.0
"""What this node must have: a pure function of settings, record and what the store lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pycni.cluster import IPAddress, gateway
from pycni.kernel.routes import Route
from pycni.node.overlay import NEXT_HOPS
from pycni.node.record import Node
from pycni.settings import Settings
from pycni.stores import NodeRecord


@dataclass(frozen=True)
class Description:
    """What a node must have. What its pods must have follows from their leases, which are links."""

    settings: Settings
    node: Node
    nodes: tuple[NodeRecord, ...] | None = None
    """All nodes as the store lists them, this one among them; None if that is not known."""

    def is_made_of(self, other: Description) -> bool:
        """Whether it is made of the very objects of the other one: cheaper than whether it says
        the same."""
        return (
            self.settings is other.settings
            and self.node is other.node
            and self.nodes is other.nodes
        )

    @cached_property
    def others(self) -> tuple[NodeRecord, ...]:
        """The other nodes, as far as the store is known."""
        return tuple(one for one in self.nodes or () if one.name != self.node.name)

    @cached_property
    def own_record(self) -> NodeRecord | None:
        """This node as the store lists it."""
        return next((one for one in self.nodes or () if one.name == self.node.name), None)

    @property
    def has_ipv6(self) -> bool:
        """Whether pods have IPv6."""
        return any(cidr.version == 6 for cidr in self.node.cluster_cidrs)

    def gateway(self, version: int) -> IPAddress:
        """The pods' gateway of an IP version that the cluster has."""
        return next(gateway(cidr) for cidr in self.node.pod_cidrs if cidr.version == version)

    def routes(self, device: int) -> list[Route]:
        """The routes to the cluster; `device` is the ifindex of the overlay device."""
        return [
            Route(cidr, device, NEXT_HOPS[cidr.version], self.gateway(cidr.version))
            for cidr in self.node.cluster_cidrs
        ]


def describe(settings: Settings, nodes: tuple[NodeRecord, ...] | None = None) -> Description | None:
    """The description by the node's record; None if there is none that can be read."""
    node = Node.load_if_any(settings)
    return None if node is None else Description(settings, node, nodes)
