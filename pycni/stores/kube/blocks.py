# SPDX-License-Identifier: Apache-2.0
"""PodBlocks: the claims of nodes to networks, and to single addresses that they publish.

A claim is made by creating the object that is named after the network: of two, the API server
lets one win. Its Node owns it, so that it goes with the Node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network

from pycni.cluster import IPNetwork
from pycni.errors import TryAgain
from pycni.stores.kube import objects
from pycni.stores.kube.client import Client
from pycni.stores.kube.objects import POD_BLOCKS, Document
from pycni.stores.kube.pages import pages

TRIES = 3
YOUNG = 600.0
"""Seconds for which a claim may be one that is just being made."""


@dataclass(frozen=True)
class Blocks:
    """The claims. All raise StoreError."""

    client: Client

    def claim(self, cidr: IPNetwork, node: str, *, uid: str) -> str:
        """Claim a network for a node, whose Node has that UID; returns which node has it now."""
        for _ in range(TRIES):
            if self.client.create(POD_BLOCKS, objects.pod_block(cidr, node, uid)):
                return node
            holder = self._get(cidr)
            if holder is not None:
                return _node(holder)
        raise TryAgain(
            f"the claim to {cidr} comes and goes", hint="nothing to do: it is tried again"
        )

    def holder(self, cidr: IPNetwork) -> str:
        """The node that has claimed a network; empty if none has."""
        block = self._get(cidr)
        return "" if block is None else _node(block)

    def hold(self, cidrs: Iterable[IPNetwork], node: str, *, uid: str) -> tuple[IPNetwork, ...]:
        """Those of `cidrs` that the node has claimed, after claiming what is free.

        A claim that belongs to a Node of before, of the same name, goes with that one: it is made
        again for the Node that has this UID.
        """
        wanted = tuple(cidrs)
        if not wanted:
            return ()
        ours = {objects.name_of(block): block for block in self._of(node)}
        held = []
        for cidr in wanted:
            block = ours.get(objects.block_name(cidr))
            if block is not None and objects.owner_uid(block) != uid:
                self._delete(block)
                block = None
            if block is not None or self.claim(cidr, node, uid=uid) == node:
                held.append(cidr)
        return tuple(held)

    def claimed(self, node: str) -> list[IPNetwork]:
        """What the node has claimed, the oldest claim first."""
        found = []
        for block in self._of(node):
            text = objects.text(objects.fields(block.get("spec")), "cidr")
            with suppress(ValueError):
                cidr = ip_network(text)
                if objects.block_name(cidr) == objects.name_of(block):
                    found.append((objects.created(block), objects.name_of(block), cidr))
        return [cidr for _, _, cidr in sorted(found, key=lambda one: one[:2])]

    def all(self) -> dict[str, str]:
        """The nodes that have claims, by the claims' names."""
        return {
            objects.name_of(block): _node(block)
            for page in pages(self.client, POD_BLOCKS)
            for block in page.items
        }

    def release(self, cidr: IPNetwork, node: str) -> None:
        """The undo of `claim`; no error if the network is not the node's."""
        block = self._get(cidr)
        if block is not None and _node(block) == node:
            self._delete(block)

    def release_all(self, node: str) -> None:
        """Release whatever the node has claimed."""
        for block in self._of(node):
            self._delete(block)

    def sweep(self, node: str, *, kept: Collection[IPNetwork], now: float) -> None:
        """Release old claims of the node but those in `kept`: a publishing that was killed left
        them. `now` is the Unix time."""
        names = {objects.block_name(cidr) for cidr in kept}
        for block in self._of(node):
            is_old = now - objects.created(block) > YOUNG
            if is_old and objects.name_of(block) not in names:
                self._delete(block)

    def _get(self, cidr: IPNetwork) -> Document | None:
        return self.client.get(f"{POD_BLOCKS}/{objects.block_name(ip_network(cidr))}")

    def _of(self, node: str) -> Iterator[Document]:
        """Chosen by the server where it can (KEP-4358), and here."""
        for page in pages(self.client, POD_BLOCKS, fieldSelector=f"spec.node={node}"):
            yield from (block for block in page.items if _node(block) == node)

    def _delete(self, block: Document) -> None:
        """As it was read: if it is another by now, it is not ours to delete."""
        head = objects.metadata(block)
        self.client.delete(
            f"{POD_BLOCKS}/{objects.name_of(block)}",
            uid=objects.text(head, "uid"),
            resourceVersion=objects.text(head, "resourceVersion"),
        )


def _node(block: Document) -> str:
    return objects.text(objects.fields(block.get("spec")), "node")
