# SPDX-License-Identifier: Apache-2.0
"""Ranges of the LAN that all nodes share: each node has the part that its place in the store gives
it. Pure.

The store gives each node a pod CIDR that no other has. Its number among all that fit into the
cluster's network is the number of the node's part. So one network list serves all nodes, no address
needs a word with the store, and a part is free again when the node has left the cluster.
"""

from __future__ import annotations

from ipaddress import ip_address

from pycni.cluster import IPNetwork
from pycni.errors import InvalidConfig
from pycni.ipam.ranges import Range
from pycni.node.record import Node


def of_node(shared: Range, size: int, node: Node) -> Range:
    """The part of a range that has `size` addresses and is this node's.

    Raises InvalidConfig if the range ends before it begins.
    """
    number = _number(shared.network.version, node)
    first = int(shared.first) + number * size
    if first > int(shared.last):
        room = -(-(int(shared.last) - int(shared.first) + 1) // size)
        raise InvalidConfig(
            f"no part of the range {shared.first} to {shared.last} is this node's",
            details=f"it has {room} parts of {size} addresses; this node's is number {number + 1}, "
            "as its pod CIDR is among the cluster's",
            hint="widen the range, or make `perNode` smaller, in the lists of all nodes",
        )
    last = min(first + size - 1, int(shared.last))
    kind = type(shared.first)
    return shared._replace(first=ip_address(kind(first)), last=ip_address(kind(last)))


def _number(version: int, node: Node) -> int:
    """Of the node's pod CIDR, of that IP version if it has one; from 0."""
    same = [cidr for cidr in node.pod_cidrs if cidr.version == version]
    own = (same or list(node.pod_cidrs))[0]
    around = next(cidr for cidr in node.cluster_cidrs if _contains(cidr, own))
    distance = int(own.network_address) - int(around.network_address)
    return distance >> own.max_prefixlen - own.prefixlen


def _contains(network: IPNetwork, part: IPNetwork) -> bool:
    return network.version == part.version and part.network_address in network
