# SPDX-License-Identifier: Apache-2.0
"""When a node needs another block of addresses, and which blocks it can give back. Pure.

Early enough that no pod waits, and with room between the two, so that a node does not claim what it
has just given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pycni.cluster import IPAddress, IPNetwork
from pycni.ipam.pools import node_pool

FEW = 8
"""Addresses, or a tenth of all if these are more: with fewer that are free, a node needs another
block."""

Used = Mapping[IPNetwork, int]
"""How many addresses of each network pods have."""


def room(network: IPNetwork) -> int:
    """How many addresses of a network pods may have."""
    return sum(last - first + 1 for first, last in node_pool(network).spans)


def count(networks: Iterable[IPNetwork], addresses: Iterable[IPAddress]) -> dict[IPNetwork, int]:
    """How many of the addresses are in each network. Networks of one family have one length."""
    found = dict.fromkeys(networks, 0)
    shifts = {one.version: one.max_prefixlen - one.prefixlen for one in found}
    named = {(one.version, int(one.network_address) >> shifts[one.version]): one for one in found}
    for address in addresses:
        shift = shifts.get(address.version, 0)
        if (network := named.get((address.version, int(address) >> shift))) is not None:
            found[network] += 1
    return found


def short(networks: Iterable[IPNetwork], used: Used) -> list[int]:
    """The IP versions of which a node needs another block."""
    found = list(networks)
    versions = sorted({one.version for one in found})
    return [
        version
        for version in versions
        if _is_short([one for one in found if one.version == version], used, times=1)
    ]


def spare(
    pod_cidrs: Iterable[IPNetwork], blocks: Iterable[IPNetwork], used: Used
) -> list[IPNetwork]:
    """Blocks that are empty and can all be given back, the last ones first: what is left is twice
    what makes the node need another."""
    left = [*pod_cidrs, *blocks]
    found = []
    for block in reversed(left[len(left) - len(list(blocks)) :]):
        rest = [one for one in left if one != block and one.version == block.version]
        if not used.get(block) and not _is_short(rest, used, times=2):
            left.remove(block)
            found.append(block)
    return found


def _is_short(networks: Iterable[IPNetwork], used: Used, *, times: int) -> bool:
    whole = free = 0
    for network in networks:
        whole += room(network)
        free += room(network) - used.get(network, 0)
    return free < times * max(FEW, whole // 10)
