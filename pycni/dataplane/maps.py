"""The pinned BPF maps as typed tables: addresses and records in, bytes to the kernel.

The layouts mirror `bpf/lib/types.h`; `tests/unit/dataplane/test_maps_abi.py` checks every format
here against the BTF of the compiled programs. Addresses are 16 bytes in network order, IPv4 as
v4-mapped (RFC 4291, 2.5.5.2); integers are in host order. No netlink, no policy here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Generic, TypeVar

from loader import bpf, pins
from pycni.cluster import IPAddress, IPNetwork
from pycni.errors import NotAvailable
from pycni.names import GATEWAY_MAC, OVERLAY_MAC

K = TypeVar("K")
V = TypeVar("V")

ENDPOINT_MASQUERADE = 1
ENDPOINT_SHAPED = 2
ENDPOINT_FORWARDS = 4
ENDPOINT_QUEUED = 8
V4_MAPPED = bytes(10) + b"\xff\xff"
V4_PREFIX_OFFSET = 96

ENDPOINT_FORMAT = struct.Struct("=I6sH")
REMOTE_KEY_FORMAT = struct.Struct("=I16s")
VTEP_FORMAT = struct.Struct("=I")
DROP_COUNT_FORMAT = struct.Struct("=QQ")
PATH_COUNT_FORMAT = struct.Struct("=QQ")
EVENT_FORMAT = struct.Struct("=HHI")
DROP_EVENT_FORMAT = struct.Struct("=HHIQIIBBHI64s")
NEXTHOP_FORMAT = struct.Struct("=II6s6sI")
SELF_FORMAT = struct.Struct("=16sQ")
CONFIG_FORMAT = struct.Struct("=IIIIII6s6s2sBBBB2x16s16s32s32sI16sI16s")
ONLY_KEY = struct.pack("=I", 0)


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


@dataclass(frozen=True)
class NextHop:
    """How packets leave to another node; `mtu` is the largest IP packet of a pod, in bytes."""

    ifindex: int
    mtu: int
    dst_mac: str
    src_mac: str
    used: bool = field(default=False, compare=False)
    """Whether packets went this way since this entry was written."""


@dataclass(frozen=True)
class Self:
    """What changes of a node while it runs: its underlay address, and until when next hops hold.

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
    """What enters this device, the host's stack receives."""
    vxlan_ifindex: int
    """The VXLAN device that takes tunnel metadata; 0: there is none."""
    overlay_mtu: int
    masquerade_mark: int
    tunnel_key_local: bool
    own_encap: bool
    decap_l3: bool
    netkit: bool
    gateways: tuple[IPAddress, ...]
    clusters: tuple[IPNetwork, ...]
    pod_cidrs: tuple[IPNetwork, ...]
    """This node's; those of all nodes have their lengths."""
    event_mask: int = 0x0F

    def pack(self) -> bytes:
        """Bytes of `struct config`."""
        return CONFIG_FORMAT.pack(
            self.vni,
            self.stack_ifindex,
            self.vxlan_ifindex,
            self.overlay_mtu,
            self.masquerade_mark,
            self.event_mask,
            pack_mac(GATEWAY_MAC),
            pack_mac(OVERLAY_MAC),
            self.port.to_bytes(2, "big"),
            self.tunnel_key_local,
            self.own_encap,
            self.decap_l3,
            self.netkit,
            self._gateway(4),
            self._gateway(6),
            self._cluster(4),
            self._cluster(6),
            *self._node_prefix(4),
            *self._node_prefix(6),
        )

    def _gateway(self, family: int) -> bytes:
        return next((pack_address(g) for g in self.gateways if g.version == family), bytes(16))

    def _cluster(self, family: int) -> bytes:
        for cluster in self.clusters:
            if cluster.version == family:
                return pack_address(cluster.network_address) + _pack_mask(cluster)
        return bytes(16) + b"\xff" * 16  # nothing has this address: the family is off

    def _node_prefix(self, family: int) -> tuple[int, bytes]:
        for cidr in self.pod_cidrs:
            if cidr.version == family:
                return prefix_length(cidr), _pack_mask(cidr)
        return 0, bytes(16)  # no entry has this length


@dataclass(frozen=True)
class Codec(Generic[K, V]):
    """How one map's keys and values look in memory."""

    pack_key: Callable[[K], bytes]
    unpack_key: Callable[[bytes], K]
    pack_value: Callable[[V], bytes]
    unpack_value: Callable[[bytes], V]


class Table(Generic[K, V]):
    """A pinned map read and written as typed entries; owns the map's descriptor.

    Every method raises OSError with the kernel's errno; ENOSPC or E2BIG means the map is full.
    """

    def __init__(self, pinned: bpf.Map, codec: Codec[K, V]) -> None:
        self._map = pinned
        self._codec = codec

    def get(self, key: K) -> V | None:
        value = self._map.lookup(self._codec.pack_key(key))
        return None if value is None else self._codec.unpack_value(value)

    def put(self, key: K, value: V) -> None:
        self._map.update(self._codec.pack_key(key), self._codec.pack_value(value))

    def insert(self, key: K, value: V) -> bool:
        """Put, atomically, unless there is an entry: then False."""
        return self._map.insert(self._codec.pack_key(key), self._codec.pack_value(value))

    def remove(self, key: K) -> bool:
        """True if the entry was there."""
        return self._map.delete(self._codec.pack_key(key))

    def items(self) -> Iterator[tuple[K, V]]:
        for key, value in self._map.items():
            yield self._codec.unpack_key(key), self._codec.unpack_value(value)

    def close(self) -> None:
        self._map.close()

    def __enter__(self) -> Table[K, V]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_endpoints(root: Path) -> Table[IPAddress, Endpoint]:
    """Address of a local pod -> its veth. `root` is the pin directory, e.g. /sys/fs/bpf/pycni."""
    return Table(open_map(root, "endpoints"), ENDPOINTS)


def open_remotes(root: Path) -> Table[IPNetwork, IPAddress]:
    """Pod CIDR of another node, or an address that it published -> its VTEP."""
    return Table(open_map(root, "remotes"), REMOTES)


def open_vteps(root: Path) -> Table[IPAddress, int]:
    """Underlay address of another node -> its number in the cluster store."""
    return Table(open_map(root, "vteps"), VTEPS)


def open_nexthops(root: Path) -> Table[IPAddress, NextHop]:
    """Underlay address of another node -> how packets to it leave."""
    return Table(open_map(root, "nexthops"), NEXTHOPS)


def open_self(root: Path) -> Table[None, Self]:
    """The one entry about this node."""
    return Table(open_map(root, "self"), SELF)


def open_map(root: Path, name: str) -> bpf.Map:
    """A pinned map by name. Raises NotAvailable if it is not there, as after a reboot."""
    try:
        return bpf.Map.open_pinned(pins.map_path(root, name))
    except FileNotFoundError:
        raise NotAvailable(
            f"the dataplane of this node is not loaded: there is no map {name} in {root}",
            hint="run: pycni setup (the agent does it when it starts)",
        ) from None


def pack_address(address: IPAddress) -> bytes:
    """16 bytes, network order, IPv4 as v4-mapped."""
    return V4_MAPPED + address.packed if address.version == 4 else address.packed


def unpack_address(raw: bytes) -> IPAddress:
    """The inverse of `pack_address`."""
    return IPv4Address(raw[12:]) if raw[:12] == V4_MAPPED else IPv6Address(raw)


def prefix_length(network: IPNetwork) -> int:
    """Length in the 128 bits of a v4-mapped address."""
    return network.prefixlen + (V4_PREFIX_OFFSET if network.version == 4 else 0)


def pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def unpack_mac(raw: bytes) -> str:
    return raw.hex(":")


def _pack_mask(network: IPNetwork) -> bytes:
    length = prefix_length(network)
    return (((1 << length) - 1) << (128 - length)).to_bytes(16, "big")


def _pack_network(network: IPNetwork) -> bytes:
    return REMOTE_KEY_FORMAT.pack(prefix_length(network), pack_address(network.network_address))


def _unpack_network(raw: bytes) -> IPNetwork:
    length, packed = REMOTE_KEY_FORMAT.unpack(raw)
    address = unpack_address(packed)
    return ip_network((address, length - V4_PREFIX_OFFSET if address.version == 4 else length))


def _pack_endpoint(endpoint: Endpoint) -> bytes:
    flags = (
        endpoint.masquerade * ENDPOINT_MASQUERADE
        | endpoint.shaped * ENDPOINT_SHAPED
        | endpoint.forwards * ENDPOINT_FORWARDS
        | endpoint.queued * ENDPOINT_QUEUED
    )
    return ENDPOINT_FORMAT.pack(endpoint.ifindex, pack_mac(endpoint.mac), flags)


def _unpack_endpoint(raw: bytes) -> Endpoint:
    ifindex, mac, flags = ENDPOINT_FORMAT.unpack(raw)
    return Endpoint(
        ifindex,
        unpack_mac(mac),
        masquerade=bool(flags & ENDPOINT_MASQUERADE),
        shaped=bool(flags & ENDPOINT_SHAPED),
        forwards=bool(flags & ENDPOINT_FORWARDS),
        queued=bool(flags & ENDPOINT_QUEUED),
    )


def _unpack_nexthop(raw: bytes) -> NextHop:
    ifindex, mtu, dst_mac, src_mac, used = NEXTHOP_FORMAT.unpack(raw)
    return NextHop(ifindex, mtu, unpack_mac(dst_mac), unpack_mac(src_mac), used=bool(used))


def _unpack_self(raw: bytes) -> Self:
    vtep, fresh_until = SELF_FORMAT.unpack(raw)
    return Self(unpack_address(vtep), fresh_until)


ENDPOINTS: Codec[IPAddress, Endpoint] = Codec(
    pack_address, unpack_address, _pack_endpoint, _unpack_endpoint
)
REMOTES: Codec[IPNetwork, IPAddress] = Codec(
    _pack_network, _unpack_network, pack_address, unpack_address
)
VTEPS: Codec[IPAddress, int] = Codec(
    pack_address, unpack_address, VTEP_FORMAT.pack, lambda raw: int(VTEP_FORMAT.unpack(raw)[0])
)
NEXTHOPS: Codec[IPAddress, NextHop] = Codec(
    pack_address,
    unpack_address,
    lambda hop: NEXTHOP_FORMAT.pack(
        hop.ifindex, hop.mtu, pack_mac(hop.dst_mac), pack_mac(hop.src_mac), hop.used
    ),
    _unpack_nexthop,
)
SELF: Codec[None, Self] = Codec(
    lambda _: ONLY_KEY,
    lambda _: None,
    lambda own: SELF_FORMAT.pack(pack_address(own.vtep), own.fresh_until),
    _unpack_self,
)
