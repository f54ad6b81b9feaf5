# SPDX-License-Identifier: Apache-2.0
"""With whom this node has sessions: the speakers of its settings, and nodes of the store.

Pure. A session keeps its name while anything else of it changes, so BIRD lets it be.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pycni.bgp_settings import Bgp
from pycni.cluster import IPAddress
from pycni.stores import NodeRecord

MESH_MAX = 100
"""Nodes that all speak with each other. Sessions grow with their square: with more than that, a few
nodes should reflect the routes of all."""


@dataclass(frozen=True)
class Neighbour:
    """The other end of one session."""

    name: str
    """Of BIRD's protocol."""
    address: IPAddress
    asn: int
    password_file: Path | None = None
    bfd: bool = False
    multihop: int = 0
    communities: tuple[str, ...] = ()
    client: bool = False
    """Whether this node reflects routes to it."""
    is_node: bool = False
    """Whether it is a node of the store, which tells nothing of the fabric."""


def wanted(bgp: Bgp, own_name: str, others: Iterable[NodeRecord]) -> tuple[Neighbour, ...]:
    """The neighbours of the node `own_name`; one address has one session."""
    found = {
        peer.address: Neighbour(
            _name("peer", peer.address),
            peer.address,
            peer.asn,
            peer.password_file,
            peer.bfd,
            peer.multihop,
            (*bgp.communities, *peer.communities),
            peer.client,
        )
        for peer in bgp.peers
    }
    reflects = own_name in bgp.reflectors
    for other in others if bgp.mesh else ():
        other_reflects = other.name in bgp.reflectors
        if not bgp.reflectors or reflects or other_reflects:
            is_client = reflects and not other_reflects
            found.setdefault(other.vtep, _node(bgp, other.vtep, client=is_client))
    return tuple(sorted(found.values(), key=lambda one: one.name))


def mark(node_name: str, vtep: IPAddress) -> int:
    """32 bits by which a node's announcements are known to be its own, whoever passed them on. With
    the address in them, for two machines may have one name."""
    return int.from_bytes(hashlib.sha256(f"{node_name} {vtep}".encode()).digest()[:4], "big")


def _node(bgp: Bgp, address: IPAddress, *, client: bool) -> Neighbour:
    return Neighbour(
        _name("node", address),
        address,
        bgp.asn,
        bgp.password_file,
        bgp.bfd,
        communities=bgp.communities,
        client=client,
        is_node=True,
    )


def _name(kind: str, address: IPAddress) -> str:
    """A symbol of BIRD's."""
    return f"{kind}_{re.sub(r'[.:]', '_', str(address))}"
