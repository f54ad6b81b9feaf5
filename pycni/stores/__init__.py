"""The cluster store: which nodes there are, and which pod CIDRs each of them has.

One interface for every kind of store: list, then watch, with an explicit "the list is complete". A
store that cannot be read raises; it never looks like a cluster without nodes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pycni.cluster import Cluster, IPAddress, IPNetwork
from pycni.errors import InvalidSettings

HEARTBEAT_INTERVAL = 10.0
"""Seconds between two heartbeats of an agent."""
HEARTBEAT_FRESH = 30.0
"""Seconds for which a heartbeat shows that its node lives: three intervals."""

MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class NodeRecord:
    """One node of the cluster."""

    name: str
    node_id: int
    """1 and up; the smallest that was free."""
    vtep: IPAddress
    pod_cidrs: tuple[IPNetwork, ...]
    """One per family of the cluster, IPv4 first."""
    heartbeat: float
    """When its agent last said that it lives; Unix time in seconds, 0 if that is not known."""
    extra: tuple[IPNetwork, ...] = ()
    """Prefixes outside its pod CIDRs that it published."""


@dataclass(frozen=True)
class Put:
    """A node joined, or is another than before. Heartbeats alone are no event."""

    node: NodeRecord


@dataclass(frozen=True)
class Removed:
    """A node left. Its pod CIDRs and VTEP may be another node's in the next event."""

    name: str


@dataclass(frozen=True)
class Synced:
    """What was told until here holds, together. The first one ends the list of all nodes there were
    at the beginning: from then on, absent means gone. The others each end changes that came
    together, and in the midst of which a place may seem to be nobody's, or two nodes'."""


Event = Put | Removed | Synced


class Store(Protocol):
    """What every kind of store does; safe to call from several threads.

    Any method raises StoreError when the store cannot be read or written.
    """

    def register(self, name: str, vtep: IPAddress, *, identity: str) -> NodeRecord:
        """Makes `name` a node of the cluster, with the first free pod CIDR of each family.

        A node that is there already keeps its id and CIDRs, and gets the new VTEP. `identity` is
        the machine's (see `machine_identity`). Raises StoreError when another living machine has
        that name, another node has that VTEP, or all pod CIDRs are taken; then nothing has changed.
        """
        ...

    def heartbeat(self, name: str) -> None:
        """Says that the node lives. Raises StoreError if it is not registered (any more)."""
        ...

    def publish(self, name: str, prefix: IPNetwork) -> str:
        """Makes `prefix` one of the node's, unless it is another's; returns whose it is then.

        Another's is what another has published, or what overlaps another's pod CIDRs. Raises
        StoreError if the node is not registered.
        """
        ...

    def withdraw(self, name: str, prefix: IPNetwork) -> None:
        """The undo of `publish`; no error if the prefix is not the node's."""
        ...

    def nodes(self) -> tuple[NodeRecord, ...]:
        """All nodes, by name."""
        ...

    def remove(self, name: str) -> bool:
        """Takes a node out and frees its id and prefixes; False if there was none of that name."""
        ...

    def watch(self, stop: threading.Event) -> Iterator[Event]:
        """A Put for each node, Synced, then every change, until `stop` is set.

        Of changes that come together, Removed come first, and a Synced last. A failure raises: the
        caller watches anew, and deletes nothing before the next Synced.
        """
        ...


def open_store(url: str, cluster: Cluster, *, create: bool = True) -> Store:
    """The store at `url`: `sqlite:/absolute/path`, or `etcd://HOST:PORT/PREFIX` (gateway.py).

    Made if absent, unless `create` is False. Raises InvalidSettings for an unknown kind of URL,
    ClusterError when the store was made with other cluster parameters, StoreError when it cannot be
    opened.
    """
    kind, _, rest = url.partition(":")
    # Imported here, so that a node imports the client of its own kind of store only.
    if kind in ("etcd", "etcds"):
        from pycni.stores.etcd import EtcdStore

        return EtcdStore.open(url, cluster, create=create)
    if kind != "sqlite":
        raise InvalidSettings(
            f"store = {url!r}: unknown kind of store {kind!r}",
            hint="use 'etcd://HOST:2379', or 'sqlite:/absolute/path' where all agents share a file "
            "system, or leave store empty for a cluster of one machine",
        )
    path = Path(rest.removeprefix("//"))
    if not path.is_absolute():
        raise InvalidSettings(
            f"store = {url!r}: the path is not absolute", hint="use 'sqlite:/absolute/path'"
        )
    from pycni.stores.sqlite import SqliteStore

    return SqliteStore.open(path, cluster, create=create)


def machine_identity() -> str:
    """Tells this machine from others, over reboots; without a machine ID, for this boot only.

    Hashed: machine-id(5) wants the ID itself kept from others.
    """
    try:
        machine = MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    if machine in ("", "uninitialized"):
        machine = BOOT_ID.read_text(encoding="ascii").strip()
    return hashlib.sha256(f"pycni:{machine}".encode()).hexdigest()[:32]
