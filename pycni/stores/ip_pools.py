# SPDX-License-Identifier: Apache-2.0
"""Pools that nodes claim blocks of: which of them a node may use, and where it looks for a block.

A block is a network of the one length that all pod CIDRs of its family have. Pure; a kind of store
that has pools reads them (kube/pools.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Protocol

from pycni.cluster import Cluster, IPNetwork, node_capacity, overlap


@dataclass(frozen=True)
class IPPool:
    """Networks of a cluster that nodes may have."""

    name: str
    """Printable ASCII."""
    cidr: IPNetwork
    disabled: bool
    """Whether it gives no new blocks."""
    selector: tuple[tuple[str, str], ...]
    """Labels that a Node must have."""
    age: tuple[int, str]
    """The lower one counts as older: when it was made, in seconds of Unix time, and its name."""

    def refusal(self, labels: Mapping[str, str]) -> str:
        """Why a node with these labels gets no new block of it; empty if it may."""
        if self.disabled:
            return "disabled"
        if any(labels.get(key) != value for key, value in self.selector):
            return "for Nodes with other labels"
        return ""

    def candidates(self, length: int, node: str) -> Iterator[IPNetwork]:
        """Each of its blocks once. Where to begin, and how far to step, comes from the node's
        name: so nodes that look at once seldom meet, and a node finds what it had before.
        """
        count = node_capacity(self.cidr, length)
        digest = hashlib.sha256(node.encode()).digest()
        start, step = (int.from_bytes(part) for part in (digest[:8], digest[8:16]))
        size = 1 << (self.cidr.max_prefixlen - length)
        for number in range(count):
            # an odd step passes all of a power of two
            place = (start + number * (step | 1)) % count
            yield ip_network((self.cidr.network_address + place * size, length))


@dataclass(frozen=True)
class Pools:
    """All pools of a cluster."""

    valid: tuple[IPPool, ...] = ()
    """The oldest first."""
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """By name, why that pool is not used. Printable ASCII."""

    @classmethod
    def checked(
        cls, found: Iterable[IPPool], cluster: Cluster, *, broken: Mapping[str, str]
    ) -> Pools:
        """The pools that fit the cluster. Of two that overlap, the older one counts. `broken` are
        those that could not be read, and why."""
        valid: list[IPPool] = []
        set_aside = dict(broken)
        for pool in sorted(found, key=lambda one: one.age):
            if reason := _misfit(pool, cluster) or _overlap(pool, valid):
                set_aside[pool.name] = reason
            else:
                valid.append(pool)
        return cls(tuple(valid), set_aside)

    def of_family(self, version: int) -> list[IPPool]:
        """The valid ones of an IP version."""
        return [pool for pool in self.valid if pool.cidr.version == version]


@dataclass(frozen=True)
class Census:
    """How much of a pool is claimed."""

    name: str
    cidr: IPNetwork | None
    """None for a pool that is set aside."""
    state: str
    """In a few words: whether it is used."""
    blocks: int = 0
    claimed: int = 0
    silent: tuple[str, ...] = ()
    """Nodes that have claims to it and give no sign of life."""


class BlockRegistry(Protocol):
    """Where a node gets further blocks, and gives them back. Any method raises StoreError when the
    store cannot be read or written, or TryAgain."""

    def grow(self, name: str, version: int) -> tuple[IPNetwork, ...]:
        """Claim another block of an IP version, and publish it; returns all blocks that the node
        publishes now. Raises PoolFull."""
        ...

    def published(self, name: str) -> tuple[IPNetwork, ...] | None:
        """The blocks that the node publishes; None if it is not registered."""
        ...

    def restore(self, name: str, blocks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
        """Publish blocks that the node had, as far as it has the claims or gets them again; returns
        all blocks that it publishes now."""
        ...

    def unpublish(self, name: str, block: IPNetwork) -> None:
        """Tell the other nodes that the block is the node's no more. It stays claimed."""
        ...

    def release(self, name: str, block: IPNetwork) -> None:
        """Give back the claim to a block that is not published."""
        ...

    def tidy(self, name: str, *, kept: Iterable[IPNetwork]) -> None:
        """Give back claims of the node that it does not publish and that are not in `kept`: a
        process that was killed left them. Young ones may be being made and stay."""
        ...

    def pools(self) -> Pools:
        """All pools."""
        ...

    def census(self) -> list[Census]:
        """All pools, and who has claimed how much of them."""
        ...


def _misfit(pool: IPPool, cluster: Cluster) -> str:
    whole = next((one for one in cluster.cidrs if one.version == pool.cidr.version), None)
    if (
        whole is None
        or pool.cidr.network_address not in whole
        or (pool.cidr.prefixlen < whole.prefixlen)
    ):
        return f"its CIDR {pool.cidr} is not in the cluster's CIDRs"
    length = cluster.node_prefix(pool.cidr.version)
    if pool.cidr.prefixlen > length:
        return f"its CIDR {pool.cidr} is smaller than a block, a /{length}"
    return ""


def _overlap(pool: IPPool, older: Iterable[IPPool]) -> str:
    for one in older:
        if overlap(one.cidr, pool.cidr):
            return f"its CIDR {pool.cidr} overlaps {one.cidr} of the older pool {one.name}"
    return ""
