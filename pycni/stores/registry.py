# SPDX-License-Identifier: Apache-2.0
"""The nodes of a cluster: what is recorded of each, and how a node gets and gives up its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pycni.cluster import IPAddress, IPNetwork
from pycni.stores.former import NEW, Former
from pycni.stores.ip_pools import BlockRegistry

HEARTBEAT_INTERVAL = 10.0
"""Seconds between two heartbeats of an agent."""
HEARTBEAT_FRESH = 30.0
"""Seconds after a heartbeat for which its node counts as alive: three intervals."""

VXLAN, DIRECT, ROUTED, IPIP = "vxlan", "direct", "routed", "ipip"
"""What a node may accept: packets in VXLAN, without outer headers, those from routers, too, and in
IPIP."""

NAMED = 3
"""How many rejected records a summary names."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node's place in the cluster."""

    name: str
    node_id: int
    """1 and up: the smallest that was free."""
    vtep: IPAddress
    pod_cidrs: tuple[IPNetwork, ...]
    """One per family of the cluster, IPv4 first."""
    extra: tuple[IPNetwork, ...] = ()
    """Addresses of its pods outside its pod CIDRs, which it published; each as a prefix of full
    length."""
    addresses: tuple[IPAddress, ...] = ()
    """The node's own addresses, its VTEP among them; empty if an older pycni wrote the record."""
    blocks: tuple[IPNetwork, ...] = ()
    """Further networks of its pods, each of the length of a pod CIDR of its family."""
    accepts: tuple[str, ...] = ()
    """What it takes of other nodes besides VXLAN, which all take: DIRECT, and ROUTED if from
    routers, too; IPIP."""

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """All networks of its pods, its pod CIDRs first."""
        return (*self.pod_cidrs, *self.blocks)


@dataclass(frozen=True)
class Reach:
    """How others may reach a machine, besides by VXLAN to its VTEP."""

    addresses: tuple[IPAddress, ...] = ()
    """All that the machine itself has."""
    accepts: tuple[str, ...] = ()
    """As in NodeRecord."""


BY_VXLAN = Reach()


@dataclass(frozen=True)
class Liveness:
    """What a store knows about a node's agent."""

    alive: bool
    """Whether there was a heartbeat within HEARTBEAT_FRESH."""
    seen_ago: float | None = None
    """Seconds since the last heartbeat, or since at least then; None if the store does not know."""
    instance: str = ""
    """Who sent it (see `machine_instance`); empty if that is not known."""

    def __str__(self) -> str:
        state = "alive" if self.alive else "silent"
        return state if self.seen_ago is None else f"{state}, seen {self.seen_ago:.0f} s ago"


@dataclass(frozen=True)
class Rival:
    """Another machine that runs as the same node, or tries to: two have one name."""

    instance: str
    """See `machine_instance`."""
    vtep: str = ""
    """Its underlay address, if it is known. Printable ASCII."""
    has_place: bool = field(default=False, compare=False, kw_only=True)
    """Whether it registered last, as far as the store says that: the record is its own."""

    def __str__(self) -> str:
        return f"with VTEP {self.vtep}" if self.vtep else f"instance {self.instance}"


@dataclass(frozen=True)
class Listing:
    """All that a store has about nodes, at one moment."""

    nodes: tuple[NodeRecord, ...]
    """The valid records, by name."""
    liveness: Mapping[str, Liveness]
    """Of every node, valid or not, by name."""
    rejected: Mapping[str, str]
    """By name: why that record is set aside. Printable ASCII."""

    @property
    def summary(self) -> str:
        """One line about the rejected records."""
        if not self.rejected:
            return "all records are valid"
        named = [f"{name}: {reason}" for name, reason in sorted(self.rejected.items())[:NAMED]]
        more = len(self.rejected) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more else "")


class Registry(Protocol):
    """Where nodes register. Safe to call from several threads.

    Any method raises StoreError when the store cannot be read or written.
    """

    def register(
        self,
        name: str,
        vtep: IPAddress,
        *,
        identity: str,
        instance: str = "",
        reach: Reach = BY_VXLAN,
        had: Former = NEW,
    ) -> NodeRecord:
        """Make `name` a node of the cluster, with the first free pod CIDR of each family.

        A node that is there already keeps its id and CIDRs, and gets the new VTEP and `reach`.
        `identity` and `instance` are the machine's (see identity.py). If the record is gone, the
        machine gets the networks that it `had`, as far as no other node has them. Raises
        StoreError when another node has that VTEP, or all pod CIDRs are taken, NameTaken when
        another living machine has that name, whose next heartbeat then tells it so, and PlaceLost
        when pods of the machine live in networks that it would not get. No other node has heard of
        anything then.
        """
        ...

    def keeps(self, name: str, had: Former) -> bool | None:
        """Whether a node whose record is gone would get the networks back that it `had`; None if
        no one but this store and its records decides that."""
        ...

    def heartbeat(self, name: str, *, instance: str = "") -> Rival | None:
        """Say that the node lives. Returns another machine that has the same name, if there is one.

        Raises PlaceLost if the node is not registered (any more), or not with the networks that
        it had.
        """
        ...

    def warnings(self) -> list[str]:
        """What is not safe about this store, though it works: a sentence each."""
        ...

    def publish(self, name: str, prefix: IPNetwork) -> str:
        """Make an address one of the node's, unless another node has it; returns who has it now.

        `prefix` is one address, with the full prefix length. Another node has it if it published
        it, if it is its VTEP, or if it is in its pod CIDRs. Raises StoreError if the node is not
        registered.
        """
        ...

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        """The undo of `publish`; no error if the address is not the node's."""
        ...

    def blocks(self) -> BlockRegistry | None:
        """Where nodes get further networks; None if each has its pod CIDRs and no more."""
        ...

    def nodes(self) -> tuple[NodeRecord, ...]:
        """The nodes whose records are valid, by name."""
        ...

    def listing(self) -> Listing:
        """As `nodes`, with what is known about their agents, and the records that are set aside."""
        ...

    def remove(self, name: str) -> bool:
        """Take a node out and free its id and prefixes; False if there was none of that name.

        Removes a record that is set aside, too, by the name that a listing has for it.
        """
        ...
