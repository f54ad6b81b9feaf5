# SPDX-License-Identifier: Apache-2.0
"""The maps of Services: what an entry of each is. `flows`, `affinity` and `sockets` only programs
write."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any

from pycni.cluster import IPAddress
from pycni.dataplane import abi
from pycni.dataplane.codecs import Codec, Key
from pycni.dataplane.records import (
    Only,
    Record,
    pack_address,
    pack_port,
    unpack_address,
    unpack_port,
)

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
"""IP protocol numbers, by the names that Services have for them."""
NAMES = {number: name for name, number in PROTOCOLS.items()}

_FRONTEND = Struct(abi.FRONTEND.format)
_FLOW_KEY = Struct(abi.FLOW_KEY.format)
_AFFINITY_KEY = Struct(abi.AFFINITY_KEY.format)
_SOCKET_KEY = Struct(abi.SOCKET_KEY.format)


@dataclass(frozen=True, slots=True)
class FrontendKey:
    """What clients send to; with port and protocol 0, an address that a Service has at all."""

    address: IPAddress
    port: int = 0
    protocol: int = 0
    """An IP protocol number."""

    def __str__(self) -> str:
        return f"{_shown(self.address, self.port)}/{NAMES.get(self.protocol, self.protocol)}"


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """A service port and its two ranges in `slots`, the Cluster set's and the Local set's."""

    id: int = 0
    all_base: int = 0
    all_count: int = 0
    local_base: int = 0
    local_count: int = 0
    affinity: int = 0
    """Seconds; 0: none."""
    local: bool = False
    """Whether only the Local set is chosen from."""


@dataclass(frozen=True, slots=True)
class Backend:
    """An endpoint of a service port."""

    addr: IPAddress
    port: int
    all: bool = False
    """Whether it is in the Cluster set."""
    local: bool = False
    """Whether it is in the Local set."""
    generation: int = 0
    """Other than that of whatever had the index before."""
    service: int = 0
    """Id of the service port; 0: there is no such endpoint any more."""


@dataclass(frozen=True, slots=True)
class FlowKey:
    """Addresses and ports of a packet."""

    src: IPAddress
    sport: int
    dst: IPAddress
    dport: int
    protocol: int

    def __str__(self) -> str:
        ends = (_shown(self.src, self.sport), _shown(self.dst, self.dport))
        return f"{ends[0]} > {ends[1]}/{NAMES.get(self.protocol, self.protocol)}"


@dataclass(frozen=True, slots=True)
class Flow:
    """What a packet becomes."""

    to: FlowKey
    expires: int
    """ns of CLOCK_MONOTONIC."""
    backend: int
    generation: int
    request: bool
    answered: bool
    request_fin: bool
    answer_fin: bool
    reset: bool


@dataclass(frozen=True, slots=True)
class AffinityKey:
    """A client of a service port."""

    service: int
    client: IPAddress

    def __str__(self) -> str:
        return f"{self.client} of {self.service}"


@dataclass(frozen=True, slots=True)
class Affinity:
    """The endpoint of its last new flow."""

    expires: int
    """ns of CLOCK_MONOTONIC."""
    backend: int
    generation: int


@dataclass(frozen=True, slots=True)
class SocketKey:
    """A socket of the host, and whom it talks to: as its process says, or as the kernel does."""

    cookie: int
    """What the kernel calls the socket: SO_COOKIE."""
    address: IPAddress
    port: int

    def __str__(self) -> str:
        return f"{self.cookie} {_shown(self.address, self.port)}"


@dataclass(frozen=True, slots=True)
class SocketPeer:
    """The same as the other one knows it."""

    addr: IPAddress
    port: int
    backend: int
    generation: int


def _shown(address: IPAddress, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _pack_frontend(key: FrontendKey) -> bytes:
    return _FRONTEND.pack(pack_address(key.address), pack_port(key.port), key.protocol)


def _unpack_frontend(raw: bytes) -> FrontendKey:
    address, port, protocol = _FRONTEND.unpack(raw)
    return FrontendKey(unpack_address(address), unpack_port(port), protocol)


def _pack_flow_key(key: FlowKey) -> bytes:
    return _FLOW_KEY.pack(
        pack_address(key.src),
        pack_address(key.dst),
        pack_port(key.sport),
        pack_port(key.dport),
        key.protocol,
    )


def _unpack_flow_key(raw: bytes) -> FlowKey:
    src, dst, sport, dport, protocol = _FLOW_KEY.unpack(raw)
    return FlowKey(
        unpack_address(src), unpack_port(sport), unpack_address(dst), unpack_port(dport), protocol
    )


def _pack_affinity_key(key: AffinityKey) -> bytes:
    return _AFFINITY_KEY.pack(key.service, pack_address(key.client))


def _unpack_affinity_key(raw: bytes) -> AffinityKey:
    service, client = _AFFINITY_KEY.unpack(raw)
    return AffinityKey(service, unpack_address(client))


def _pack_socket_key(key: SocketKey) -> bytes:
    return _SOCKET_KEY.pack(key.cookie, pack_address(key.address), pack_port(key.port))


def _unpack_socket_key(raw: bytes) -> SocketKey:
    cookie, address, port = _SOCKET_KEY.unpack(raw)
    return SocketKey(cookie, unpack_address(address), unpack_port(port))


def _pack_index(index: int) -> bytes:
    return index.to_bytes(4, sys.byteorder)


def _unpack_index(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


INDEX: Key[int] = Key("index", 4, _pack_index, _unpack_index)
SERVICES: Codec[FrontendKey, ServiceEntry] = Codec(
    Key("frontend", _FRONTEND.size, _pack_frontend, _unpack_frontend),
    Record(abi.SERVICE, ServiceEntry),
)
SLOTS: Codec[int, int] = Codec(INDEX, Only(abi.SLOT), is_sparse=True)
BACKENDS: Codec[int, Backend] = Codec(INDEX, Record(abi.BACKEND, Backend), is_sparse=True)
FLOWS: Codec[FlowKey, Flow] = Codec(
    Key("packet", _FLOW_KEY.size, _pack_flow_key, _unpack_flow_key),
    Record(abi.FLOW, Flow, to=_unpack_flow_key),
)
AFFINITY: Codec[AffinityKey, Affinity] = Codec(
    Key("client", _AFFINITY_KEY.size, _pack_affinity_key, _unpack_affinity_key),
    Record(abi.AFFINITY, Affinity),
)
SOCKETS: Codec[SocketKey, SocketPeer] = Codec(
    Key("socket", _SOCKET_KEY.size, _pack_socket_key, _unpack_socket_key),
    Record(abi.SOCKET_PEER, SocketPeer),
)

TABLES: Mapping[str, Codec[Any, Any]] = {
    "services": SERVICES,
    "slots": SLOTS,
    "backends": BACKENDS,
    "flows": FLOWS,
    "affinity": AFFINITY,
    "sockets": SOCKETS,
}
