# SPDX-License-Identifier: Apache-2.0
"""The pinned BPF maps as typed tables: addresses and records in, bytes to the kernel.

A table is a line in TABLES: what a key is, and a value by its layout in abi.py, which is made from
`bpf/lib/types.h`. No netlink, no policy here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from struct import Struct
from typing import Any, Generic, TypeVar

from loader import bpf, pins
from loader.closing import Closing
from pycni.cluster import IPAddress, IPNetwork
from pycni.dataplane import abi, service_maps
from pycni.dataplane.codecs import Codec, Key
from pycni.dataplane.reconcile import Plan
from pycni.dataplane.records import (
    Only,
    Record,
    pack_address,
    pack_members,
    unpack_address,
)
from pycni.errors import NotAvailable
from pycni.names import GATEWAY_MAC, OVERLAY_MAC

K = TypeVar("K")
V = TypeVar("V")

V4_PREFIX_OFFSET = 96
ADDRESS_SIZE = 16
ONLY_KEY = bytes(4)
REMOTE_KEY = Struct(abi.REMOTE_KEY.format)

LINK_LOCAL_SIZE = 16
"""Bytes of config.link_local."""


@dataclass(frozen=True)
class Endpoint:
    """A pod on this node, reached through the host end of its veth."""

    ifindex: int
    mac: str
    masquerade: bool = False
    shaped: bool = False
    """What is sent to the pod must pass the qdisc of the host end."""
    forwards: bool = False
    """What is sent to the pod may be cut into segments again after it."""
    queued: bool = False
    """What the pod sends must pass the ingress qdisc of the host end, which others made."""


@dataclass(frozen=True, slots=True)
class NextHop:
    """How packets leave to another node; `mtu` is the largest IP packet of a pod, in bytes."""

    ifindex: int
    mtu: int
    dst_mac: str
    src_mac: str
    on_link: bool = False
    """Whether the next hop is the node itself."""
    direct: bool = False
    """Whether packets to it have no outer headers."""
    unresolved: bool = False
    """Whether the kernel does not know the MAC now: `dst_mac` is the last that it knew, or zero."""
    ipip: bool = False
    """Whether packets to it are in IPIP."""
    used: bool = field(default=False, compare=False)
    """Whether packets went this way since this entry was written."""


@dataclass(frozen=True, slots=True)
class Vtep:
    """Another node: its number in the cluster store, and whether it takes packets without outer
    headers, and in IPIP."""

    node: int
    direct: bool = False
    routed: bool = False
    """Whether it takes them from routers, too."""
    ipip: bool = False


@dataclass(frozen=True)
class Self:
    """What may change while a node runs: its underlay address, and until when next hops hold.

    `fresh_until` is nanoseconds of CLOCK_MONOTONIC.
    """

    vtep: IPAddress
    fresh_until: int


@dataclass(frozen=True)
class Config:
    """What a node's programs are told at load; becomes `struct config` in their .rodata."""

    vni: int
    port: int
    stack_ifindex: int
    """The host's stack receives what enters this device."""
    vxlan_ifindex: int
    """The VXLAN device that takes tunnel metadata; 0: there is none."""
    overlay_mtu: int
    masquerade_mark: int
    tunnel_key_local: bool
    own_encap: bool
    decap_l3: bool
    netkit: bool
    direct: bool
    """Nodes send to each other without outer headers."""
    routed: bool
    """Even by routers, which know where pods are."""
    ipip: bool
    """In IPIP."""
    gateways: tuple[IPAddress, ...]
    clusters: tuple[IPNetwork, ...]
    pod_cidrs: tuple[IPNetwork, ...]
    """This node's; those of all nodes have their lengths."""
    link_local_services: tuple[IPv4Address, ...] = ()
    """Link-local addresses that pods may reach, four at most."""
    dead_end_mark: int = 0
    """Of packets to cluster addresses of nobody; 0: no ICMP error for them."""
    services: bool = False
    """What pods send to Services is translated."""
    reject_mark: int = 0
    """Of packets to Services that the stack rejects."""
    set_retval: bool = False
    """Programs for sockets may say which error a process gets."""
    netns: int = 0
    """Cookie of the network namespace whose sockets are the node's; 0: the kernel's first."""
    event_mask: int = 0x0F

    def pack(self) -> bytes:
        """Bytes of `struct config`."""
        return pack_members(
            abi.CONFIG,
            {
                "vni": self.vni,
                "stack_ifindex": self.stack_ifindex,
                "vxlan_ifindex": self.vxlan_ifindex,
                "overlay_mtu": self.overlay_mtu,
                "masquerade_mark": self.masquerade_mark,
                "event_mask": self.event_mask,
                "vxlan_port": self.port,
                "gateway_mac": GATEWAY_MAC,
                "overlay_mac": OVERLAY_MAC,
                "tunnel_key_local": self.tunnel_key_local,
                "own_encap": self.own_encap,
                "decap_l3": self.decap_l3,
                "netkit": self.netkit,
                "direct": self.direct,
                "routed": self.routed,
                "ipip": self.ipip,
                "gateway4": self._gateway(4),
                "gateway6": self._gateway(6),
                "cluster4": self._cluster(4),
                "cluster6": self._cluster(6),
                "node_prefix4": self._node_prefix(4),
                "node_prefix6": self._node_prefix(6),
                "link_local": self._link_local(),
                "dead_end_mark": self.dead_end_mark,
                "services": self.services,
                "reject_mark": self.reject_mark,
                "set_retval": self.set_retval,
                "netns": self.netns,
            },
        )

    def _link_local(self) -> bytes:
        packed = b"".join(address.packed for address in self.link_local_services)
        if len(packed) > LINK_LOCAL_SIZE:
            raise ValueError(f"{len(self.link_local_services)} link-local services")
        return packed.ljust(LINK_LOCAL_SIZE, b"\0")

    def _gateway(self, family: int) -> bytes:
        return next((pack_address(g) for g in self.gateways if g.version == family), bytes(16))

    def _cluster(self, family: int) -> bytes:
        for cluster in self.clusters:
            if cluster.version == family:
                return pack_address(cluster.network_address) + _pack_mask(cluster)
        return bytes(16) + b"\xff" * 16  # nothing has this address: the family is off

    def _node_prefix(self, family: int) -> bytes:
        for cidr in self.pod_cidrs:
            if cidr.version == family:
                return REMOTE_KEY.pack(prefix_length(cidr), _pack_mask(cidr))
        return bytes(REMOTE_KEY.size)  # no entry has this length


class Table(Closing, Generic[K, V]):
    """A pinned map read and written as typed entries; owns the map's descriptor.

    Every method raises OSError with the kernel's errno; ENOSPC or E2BIG means the map is full.
    """

    def __init__(self, pinned: bpf.Map, codec: Codec[K, V]) -> None:
        self._map = pinned
        self._codec = codec

    @property
    def info(self) -> bpf.MapInfo:
        """What the kernel says of the map."""
        return self._map.info

    def get(self, key: K) -> V | None:
        value = self._map.lookup(self._codec.key.pack(key))
        return None if value is None else self._codec.value.unpack(value)

    def put(self, key: K, value: V) -> None:
        self._map.update(self._codec.key.pack(key), self._codec.value.pack(value))

    def insert(self, key: K, value: V) -> bool:
        """Put, atomically, unless there is an entry: then False."""
        return self._map.insert(self._codec.key.pack(key), self._codec.value.pack(value))

    def remove(self, key: K) -> bool:
        """True if the entry was there."""
        return self._map.delete(self._codec.key.pack(key))

    def items(self) -> Iterator[tuple[K, V]]:
        return self._unpacked(self._map.items())

    def stream(self) -> Iterator[tuple[K, V]]:
        """As `items`, for large maps: only a few hundred entries are held at a time. One may come
        twice while others change the map."""
        return self._unpacked(self._map.stream())

    def _unpacked(self, entries: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[K, V]]:
        for key, value in entries:
            if self._codec.is_sparse and not any(value):
                continue
            yield self._codec.key.unpack(key), self._codec.value.unpack(value)

    def raw(self) -> Iterator[tuple[bytes, bytes]]:
        """As `stream`, but the entries are bytes: for who wants few of them."""
        return self._map.stream()

    def marked(self, member: str) -> Iterator[tuple[K, V]]:
        """The entries in which a member is not zero. The others are not unpacked."""
        for key, value in self._map.marked(self._codec.value.layout.place(member)):
            yield self._codec.key.unpack(key), self._codec.value.unpack(value)

    def digest(self, *, but: str = "") -> bytes:
        """What only changes when entries do (`Map.digest`); `but` is a member that does not
        count."""
        place = self._codec.value.layout.place(but) if but else range(0)
        return self._map.digest(but=place)

    def plan(self, want: Mapping[K, V], *, synced: bool) -> Plan[K, V]:
        """What turns the map into `want`, as reconcile.plan. Entries are compared as bytes, which
        takes a fifth of the time for thousands. A map that is as wanted takes no memory for it."""
        key, value = self._codec.key, self._codec.value
        packed = ((key.pack(one), value.pack(wanted)) for one, wanted in want.items())
        if _sum(packed) == _sum(self._map.stream()):
            return Plan({}, ())
        have = self._map.entries()
        upserts = {
            one: wanted
            for one, wanted in want.items()
            if have.pop(key.pack(one), None) != value.pack(wanted)
        }
        return Plan(upserts, tuple(map(key.unpack, have)) if synced else ())

    def close(self) -> None:
        self._map.close()


def open_endpoints(root: Path) -> Table[IPAddress, Endpoint]:
    """Address of a local pod -> its host end. `root` is the pin directory, /sys/fs/bpf/pycni."""
    return open_table(root, "endpoints")


def open_remotes(root: Path) -> Table[IPNetwork, IPAddress]:
    """Pod CIDR of another node, or an address that it published -> its VTEP."""
    return open_table(root, "remotes")


def open_vteps(root: Path) -> Table[IPAddress, Vtep]:
    """Underlay address of another node -> what is known of it."""
    return open_table(root, "vteps")


def open_nodes(root: Path) -> Table[IPAddress, IPAddress]:
    """Any address of any node, this one included -> the VTEP of that node."""
    return open_table(root, "nodes")


def open_nexthops(root: Path) -> Table[IPAddress, NextHop]:
    """Underlay address of another node -> how packets to it leave."""
    return open_table(root, "nexthops")


def open_path_mtus(root: Path) -> Table[IPAddress, int]:
    """Underlay address of another node -> the largest IP packet of a pod that fits the path to it,
    in bytes, where that is less than the overlay's MTU."""
    return open_table(root, "path_mtus")


def open_self(root: Path) -> Table[None, Self]:
    """The one entry about this node."""
    return open_table(root, "self")


def open_table(root: Path, name: str) -> Table[Any, Any]:
    """One of TABLES. Raises NotAvailable if it is not there, or has another layout."""
    codec = TABLES[name]
    pinned = open_map(root, name)
    have = pinned.info.key_size, pinned.info.value_size
    want = codec.key.size, codec.value.layout.size
    if have != want:
        pinned.close()
        raise NotAvailable(
            f"the map {name} of this node is of another version of pycni",
            details="key and value have {} and {} bytes, not {} and {}".format(*have, *want),
            hint="restart the agent; where there is none, run: pycni setup",
        )
    return Table(pinned, codec)


def open_map(root: Path, name: str) -> bpf.Map:
    """A pinned map by name. Raises NotAvailable if it is not there, as after a reboot."""
    try:
        return bpf.Map.open_pinned(pins.map_path(root, name))
    except FileNotFoundError:
        raise NotAvailable(
            f"the dataplane of this node is not loaded: there is no map {name} in {root}",
            hint="run: pycni setup (the agent does it when it starts)",
        ) from None


def _sum(entries: Iterable[tuple[bytes, bytes]]) -> int:
    """The same for the same entries in any order. Others have another one, but for one case in
    2**64, which nobody can choose: hashes of bytes have a key of this process."""
    return sum(map(hash, entries))


def prefix_length(network: IPNetwork) -> int:
    """Length in the 128 bits of a v4-mapped address."""
    return network.prefixlen + (V4_PREFIX_OFFSET if network.version == 4 else 0)


def _pack_mask(network: IPNetwork) -> bytes:
    length = prefix_length(network)
    return (((1 << length) - 1) << (128 - length)).to_bytes(16, "big")


def _pack_network(network: IPNetwork) -> bytes:
    return REMOTE_KEY.pack(prefix_length(network), pack_address(network.network_address))


def _unpack_network(raw: bytes) -> IPNetwork:
    length, packed = REMOTE_KEY.unpack(raw)
    address = unpack_address(packed)
    return ip_network((address, length - V4_PREFIX_OFFSET if address.version == 4 else length))


def _address(name: str) -> Key[IPAddress]:
    return Key(name, ADDRESS_SIZE, pack_address, unpack_address)


ENDPOINTS: Codec[IPAddress, Endpoint] = Codec(_address("address"), Record(abi.ENDPOINT, Endpoint))
REMOTES: Codec[IPNetwork, IPAddress] = Codec(
    Key("prefix", REMOTE_KEY.size, _pack_network, _unpack_network), Only(abi.REMOTE)
)
VTEPS: Codec[IPAddress, Vtep] = Codec(_address("vtep"), Record(abi.VTEP, Vtep))
NODES: Codec[IPAddress, IPAddress] = Codec(_address("address"), Only(abi.NODE))
NEXTHOPS: Codec[IPAddress, NextHop] = Codec(
    _address("vtep"), Record(abi.NEXTHOP, NextHop, used=bool)
)
PATH_MTUS: Codec[IPAddress, int] = Codec(_address("vtep"), Only(abi.PATH_MTU))
SELF: Codec[None, Self] = Codec(
    Key("", len(ONLY_KEY), lambda _: ONLY_KEY, lambda _: None), Record(abi.SELF, Self)
)

TABLES: Mapping[str, Codec[Any, Any]] = {
    "endpoints": ENDPOINTS,
    "remotes": REMOTES,
    "vteps": VTEPS,
    "nodes": NODES,
    "nexthops": NEXTHOPS,
    "path_mtus": PATH_MTUS,
    "self": SELF,
    **service_maps.TABLES,
}
"""Every map that is not of counters or events."""
