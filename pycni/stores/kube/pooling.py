# SPDX-License-Identifier: Apache-2.0
"""How a node has blocks of IPPools: claims, and what of them its NodeNetwork publishes.

The claim is the authority, the NodeNetwork tells the others. A claim that is not published is used
by nobody: a process was killed before it published it, or after it took it back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pycni.cluster import Cluster, IPNetwork, node_capacity
from pycni.errors import PoolFull, TryAgain
from pycni.stores.former import Former
from pycni.stores.ip_pools import Census, IPPool, Pools
from pycni.stores.kube import nodes, objects, pools
from pycni.stores.kube.blocks import Blocks
from pycni.stores.kube.changes import change_list, not_registered, path_of
from pycni.stores.kube.client import Client
from pycni.stores.kube.leases import Leases
from pycni.stores.kube.nodes import KubeNode
from pycni.stores.kube.objects import NODE_NETWORKS, Document
from pycni.stores.kube.pages import pages
from pycni.stores.records import BLOCKS_MAX, printable
from pycni.stores.roster import Roster

BLIND = 8
"""Blocks that were taken, after which the list of all claims is read: it is large."""
LOST = 64
"""Blocks that others were faster to claim, after which this is tried later."""

Networks = tuple[IPNetwork, ...]


@dataclass(frozen=True)
class Pooling:
    """A `BlockRegistry` in the Kubernetes API. `clock` gives Unix time in seconds."""

    client: Client
    cluster: Cluster
    clock: Callable[[], float] = time.time

    def places(
        self, node: KubeNode, former: Document, roster: Roster, *, had: Former
    ) -> tuple[Networks, Networks]:
        """The pod CIDRs and further blocks of a node that registers: what its object `former` says,
        and what the machine `had`, as far as it has the claims, or what it has claimed. What is
        missing is claimed.

        Raises StoreError, and PoolFull among it; PlaceLost, before it claims anything new, if pods
        live in pod CIDRs that it gets no more. What the machine had and is free stays claimed then:
        no other node may give the addresses of its pods.
        """
        spec = objects.fields(former.get("spec"))
        published = (*objects.networks(spec, "podCIDRs"), *objects.networks(spec, "blocks"))
        known = published or tuple(self._blocks.claimed(node.name))
        before = [cidr for cidr in had.networks if roster.holder(cidr) in ("", node.name)]
        wanted = [*before, *known] if had.stays else [*known, *before]
        held = self._blocks.hold(dict.fromkeys(filter(self._is_block, wanted)), node.name,
                                 uid=node.uid)  # fmt: skip
        ours = [cidr for cidr in held if roster.holder(cidr) in ("", node.name)]
        first: dict[int, IPNetwork] = {}
        for cidr in ours:
            first.setdefault(cidr.version, cidr)
        versions = sorted(cidr.version for cidr in self.cluster.cidrs)
        if missing := [version for version in versions if version not in first]:
            had.refuse_renumbering([first[version] for version in versions if version in first])
        for version in missing:
            first[version] = self._claim(node, version, roster)
        pod_cidrs = tuple(first[version] for version in sorted(first))
        further = [cidr for cidr in ours if cidr not in pod_cidrs]
        return pod_cidrs, tuple(further[:BLOCKS_MAX])

    def grow(self, name: str, version: int) -> Networks:
        node = nodes.find(self.client, name)
        roster = self._roster()
        claim = roster.claims.get(name)
        if node is None or claim is None:
            raise not_registered(self.client, name)
        if len(claim.blocks) >= BLOCKS_MAX:
            raise PoolFull(
                f"the node {name} has {BLOCKS_MAX} blocks besides its pod CIDRs, which is the most",
                hint="use more nodes, or build the cluster with a shorter nodePrefix",
            )
        return self._publish(name, [self._claim(node, version, roster)])

    def published(self, name: str) -> Networks | None:
        document = self.client.get(path_of(name))
        if document is None:
            return None
        found = objects.networks(objects.fields(document.get("spec")), "blocks")
        return tuple(filter(self._is_block, found))

    def restore(self, name: str, blocks: Iterable[IPNetwork]) -> Networks:
        node = nodes.find(self.client, name)
        if node is None:
            raise not_registered(self.client, name)
        return self._publish(name, self._blocks.hold(blocks, name, uid=node.uid))

    def unpublish(self, name: str, block: IPNetwork) -> None:
        change_list(
            self.client, name, "blocks", lambda before: [one for one in before if one != str(block)]
        )

    def release(self, name: str, block: IPNetwork) -> None:
        self._blocks.release(block, name)

    def tidy(self, name: str, *, kept: Iterable[IPNetwork]) -> None:
        document = self.client.get(path_of(name))
        if document is None:
            return
        spec = objects.fields(document.get("spec"))
        lists = [objects.networks(spec, field) for field in ("podCIDRs", "blocks", "extra")]
        self._blocks.sweep(name, kept=[*sum(lists, ()), *kept], now=self.clock())

    def pools(self) -> Pools:
        return pools.read(self.client, self.cluster)

    def census(self) -> list[Census]:
        found = self.pools()
        holders = self._blocks.all()
        lives = Leases(self.client, self.clock).all()
        alive = {printable(name) for name, life in lives.items() if life.alive}
        counted = [self._count(pool, holders, alive) for pool in found.valid]
        aside = [
            Census(name, None, f"set aside: {why}") for name, why in sorted(found.set_aside.items())
        ]
        return [*counted, *aside]

    @property
    def _blocks(self) -> Blocks:
        return Blocks(self.client)

    def _publish(self, name: str, blocks: Iterable[IPNetwork]) -> Networks:
        """All blocks that the node publishes now."""
        more = [str(block) for block in blocks]
        listed = change_list(
            self.client, name, "blocks", lambda before: list(dict.fromkeys([*before, *more]))
        )
        if listed is None:
            raise not_registered(self.client, name)
        return objects.networks({"blocks": listed}, "blocks")

    def _roster(self) -> Roster:
        roster = Roster(self.cluster, newer_has_vtep=True, extra_in_cluster=False)
        for page in pages(self.client, NODE_NETWORKS):
            roster.change({objects.name_of(one): objects.raw(one) for one in page.items})
        return roster

    def _is_block(self, cidr: IPNetwork) -> bool:
        length = self.cluster.node_prefix(cidr.version)
        return cidr.prefixlen == length and any(
            cidr.version == whole.version and cidr.network_address in whole
            for whole in self.cluster.cidrs
        )

    def _claim(self, node: KubeNode, version: int, roster: Roster) -> IPNetwork:
        """Claim a block that nobody publishes: one that the node has claimed already, or another.
        Raises PoolFull, TryAgain."""
        found = self.pools()
        usable = [pool for pool in found.of_family(version) if not pool.refusal(node.labels)]
        for cidr in self._blocks.claimed(node.name):
            if not roster.holder(cidr) and _is_of(cidr, usable) and self._is_block(cidr):
                # made again, so that it is young, and nobody takes it for one that was left
                self._blocks.release(cidr, node.name)
                if self._blocks.claim(cidr, node.name, uid=node.uid) == node.name:
                    return cidr
        new = self._claim_new(node, usable, roster)
        if new is not None:
            return new
        raise _full(node, version, found)

    def _claim_new(
        self, node: KubeNode, usable: Iterable[IPPool], roster: Roster
    ) -> IPNetwork | None:
        """Claim a block of the first pool that has one; None if none has."""
        lost = 0
        taken: dict[str, str] = {}
        for pool in usable:
            length = self.cluster.node_prefix(pool.cidr.version)
            for cidr in pool.candidates(length, node.name):
                if objects.block_name(cidr) in taken or roster.holder(cidr):
                    continue
                if self._blocks.claim(cidr, node.name, uid=node.uid) == node.name:
                    return cidr
                lost += 1
                if lost == BLIND:
                    taken = self._blocks.all()
                if lost == LOST:
                    raise TryAgain(
                        f"other nodes are faster to claim blocks of the pool {pool.name}",
                        hint="nothing to do: it is tried again",
                    )
        return None

    def _count(self, pool: IPPool, holders: dict[str, str], alive: set[str]) -> Census:
        """By the claims' names: a pool may have more blocks than anybody counts."""
        length = self.cluster.node_prefix(pool.cidr.version)
        names = [name for name in holders if _named_in(name, pool.cidr, length)]
        state = "disabled" if pool.disabled else "in use"
        return Census(
            pool.name,
            pool.cidr,
            state,
            blocks=node_capacity(pool.cidr, length),
            claimed=len(names),
            silent=tuple(sorted({printable(holders[name]) for name in names} - alive)),
        )


def _is_of(cidr: IPNetwork, found: Iterable[IPPool]) -> bool:
    return any(
        cidr.version == pool.cidr.version and cidr.network_address in pool.cidr for pool in found
    )


def _named_in(name: str, whole: IPNetwork, length: int) -> bool:
    """Whether a claim is named after a block of that length in a network."""
    cidr = objects.named_network(name)
    return (
        cidr is not None
        and cidr.prefixlen == length
        and cidr.version == whole.version
        and cidr.network_address in whole
    )


def _full(node: KubeNode, version: int, found: Pools) -> PoolFull:
    """The error for a node that gets no block: it says of each pool why."""
    reasons = [
        f"{pool.name} is {pool.refusal(node.labels) or f'full ({pool.cidr})'}"
        for pool in found.of_family(version)
    ]
    reasons += [f"{name} is set aside: {why}" for name, why in sorted(found.set_aside.items())]
    return PoolFull(
        f"no IPPool has a free IPv{version} block for the node {node.name}: "
        f"{'; '.join(reasons) or 'there is no IPPool'}",
        hint="make another IPPool; or see `pycni pools` for claims of nodes that are gone, and "
        "remove these nodes: kubectl delete node NODE",
    )
