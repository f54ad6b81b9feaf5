# SPDX-License-Identifier: Apache-2.0
"""Services for the packet tables: what the maps hold of them, and conversations through them.

The client is pod one. A Service's address is no pod's and no node's, as ClusterIPs are.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Any

from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Packet, Raw

from bpf.dataplane import Dataplane
from bpf.layout import address
from bpf.outcomes import Outcome
from bpf.world import (
    FAMILIES,
    GATEWAY_MAC,
    IPV4,
    POD_ONE_MAC,
    VETH_ONE,
    VETH_TWO,
    Family,
    Tables,
    cluster,
)

REJECT_MARK = 0x790022
VIP = {"IPv4": "10.96.0.10", "IPv6": "fd96::a"}
OTHER_VIP = {"IPv4": "10.96.0.11", "IPv6": "fd96::b"}
PORT, TARGET, CLIENT = 80, 8080, 40000
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
DATA = b"twenty-four bytes or so."

FRONTEND = struct.Struct("=16s2sBx")
SERVICE = struct.Struct("=7I")
BACKEND = struct.Struct("=16s2sHII")
FLOW_KEY = struct.Struct("=16s16s2s2sB3x")
FLOW = struct.Struct("=40sQIIH6x")
AFFINITY = struct.Struct("=QII")
ALL, LOCAL = 1, 2
"""Flags of a backend; LOCAL is not that of a service, which is 1."""
REQUEST, ANSWERED = 1, 2


def index(number: int) -> bytes:
    return struct.pack("=I", number)


def port(number: int) -> bytes:
    return number.to_bytes(2, "big")


@dataclass(frozen=True)
class End:
    """An endpoint, `at` its index in `backends`."""

    at: int
    address: str
    port: int = TARGET
    generation: int = 1
    local: bool = False


@dataclass(frozen=True)
class Flow:
    """An entry of `flows`: what a packet of `key` becomes."""

    to: tuple[str, int, str, int]
    expires_in: float
    backend: int
    generation: int
    flags: int


@dataclass
class Services:
    """The maps of one dataplane."""

    dataplane: Dataplane
    next_slot: int = field(default=0)

    def clear(self) -> None:
        for name in ("services", "flows", "affinity"):
            for key in self.dataplane.maps[name].keys():  # noqa: SIM118 (a BPF map, not a dict)
                self.dataplane.maps[name].delete(key)
        for number in range(64):
            self.dataplane.maps["backends"].update(index(number), bytes(BACKEND.size))
        self.next_slot = 0

    def put(self, vip: str, ends: Sequence[End], **more: Any) -> None:
        """A service port with its endpoints; `more` of protocol, number (the port), service (its
        id), affinity (seconds) and local (the policy)."""
        made: dict[str, Any] = {
            "protocol": "TCP",
            "number": PORT,
            "service": 1,
            "affinity": 0,
            "local": False,
        }
        protocol, number, service, affinity, local = (made | more).values()
        maps = self.dataplane.maps
        for end in ends:
            flags = ALL | (LOCAL if end.local else 0)
            self.put_backend(end, service=service, flags=flags)
        ours = [end for end in ends if end.local]
        base = self._slots([*ends, *ours])
        value = SERVICE.pack(
            service, base, len(ends), base + len(ends), len(ours), affinity, int(local)
        )
        maps["services"].update(FRONTEND.pack(address(vip), bytes(2), 0), bytes(SERVICE.size))
        maps["services"].update(
            FRONTEND.pack(address(vip), port(number), PROTOCOLS[protocol]), value
        )

    def put_backend(self, end: End, *, service: int = 1, flags: int = ALL) -> None:
        self.dataplane.maps["backends"].update(
            index(end.at),
            BACKEND.pack(address(end.address), port(end.port), flags, end.generation, service),
        )

    def lose(self, end: End) -> None:
        """The endpoint is gone; its index waits for another."""
        gone = replace(end, generation=end.generation + 1)
        self.put_backend(gone, service=0, flags=0)

    def flows(self) -> dict[tuple[str, int, str, int], Flow]:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        found = {}
        for key, value in self.dataplane.maps["flows"].entries().items():
            to, expires, backend, generation, flags = FLOW.unpack(value)
            found[_tuple(key)] = Flow(_tuple(to), (expires - now) / 1e9, backend, generation, flags)
        return found

    def change_flows(self, **members: int) -> None:
        """Overwrite `expires` or `flags` of all entries."""
        for key, value in self.dataplane.maps["flows"].entries().items():
            to, expires, backend, generation, flags = FLOW.unpack(value)
            made = {"expires": expires, "flags": flags} | members
            self.dataplane.maps["flows"].update(
                key, FLOW.pack(to, made["expires"], backend, generation, made["flags"])
            )

    @staticmethod
    def now() -> int:
        """ns of the clock of `expires`."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def raw_flows(self) -> dict[bytes, bytes]:
        return self.dataplane.maps["flows"].entries()

    def remove_flow(self, key: tuple[str, int, str, int]) -> None:
        """The entry of that key, whatever its protocol."""
        (raw,) = (one for one in self.raw_flows() if _tuple(one) == key)
        self.dataplane.maps["flows"].delete(raw)

    def change_affinity(self, *, expires: int) -> None:
        for key, value in self.dataplane.maps["affinity"].entries().items():
            changed = AFFINITY.pack(expires, *AFFINITY.unpack(value)[1:])
            self.dataplane.maps["affinity"].update(key, changed)

    def affinities(self) -> dict[bytes, tuple[float, int]]:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        found = {}
        for key, value in self.dataplane.maps["affinity"].entries().items():
            expires, backend, _ = AFFINITY.unpack(value)
            found[key] = (expires - now) / 1e9, backend
        return found

    def send(self, packet: Packet | bytes, **fields: int) -> Outcome:
        """As pod one does."""
        return self.dataplane.run("from_container", packet, **fields)

    def _slots(self, ends: Sequence[End]) -> int:
        base = self.next_slot
        for end in ends:
            self.dataplane.maps["slots"].update(index(self.next_slot), index(end.at))
            self.next_slot += 1
        return base


def _tuple(key: bytes) -> tuple[str, int, str, int]:
    src, dst, sport, dport, _ = FLOW_KEY.unpack(key)
    return (_text(src), int.from_bytes(sport, "big"), _text(dst), int.from_bytes(dport, "big"))


def _text(raw: bytes) -> str:
    found = IPv6Address(raw)
    return str(found.ipv4_mapped or found)


def packet(
    family: Family, protocol: str, ends: tuple[str, int, str, int], *,
    src_mac: str = POD_ONE_MAC, dst_mac: str = GATEWAY_MAC, data: bytes = DATA, **l4: Any,
) -> Packet:  # fmt: skip
    """A packet with sums that scapy has computed; `ends` are source and destination."""
    src, sport, dst, dport = ends
    return (
        Ether(src=src_mac, dst=dst_mac)
        / family.ip(src, dst)
        / _l4(protocol, sport, dport, data, l4)
    )


def _l4(protocol: str, sport: int, dport: int, data: bytes, more: Mapping[str, Any]) -> Packet:
    if protocol == "TCP":
        return TCP(sport=sport, dport=dport, **more) / Raw(data)
    if protocol == "UDP":
        return UDP(sport=sport, dport=dport, **more) / Raw(data)
    return SCTP(sport=sport, dport=dport, tag=7, **more) / SCTPChunkData(data=data)


def opening(protocol: str) -> dict[str, Any]:
    """What the first packet of a flow says."""
    return {"flags": "S"} if protocol == "TCP" else {}


def swapped() -> Tables:
    """Pod two sends, and pod one is elsewhere on this node."""
    tables = cluster(IPV4)
    ones = dict(tables.endpoints)
    for family in FAMILIES:
        ones[family.pod_one] = replace(ones[family.pod_one], ifindex=VETH_TWO)
        ones[family.pod_two] = replace(ones[family.pod_two], ifindex=VETH_ONE)
    return replace(tables, endpoints=ones)


def target(protocol: str) -> int:
    """The port of an endpoint. SCTP's cannot be changed (S-101)."""
    return PORT if protocol == "SCTP" else TARGET


def request(family: Family, protocol: str, **l4: Any) -> Packet:
    """What pod one sends to the Service."""
    ends = (family.pod_one, CLIENT, VIP[family.name], PORT)
    return packet(family, protocol, ends, **{**opening(protocol), **l4})


def translated(family: Family, protocol: str, end: End, **l4: Any) -> Packet:
    """The same as an endpoint gets it, but for the MACs."""
    ends = (family.pod_one, CLIENT, end.address, end.port)
    return packet(family, protocol, ends, **{**opening(protocol), **l4})


def answer(family: Family, protocol: str, end: End, **l4: Any) -> Packet:
    """What the endpoint answers."""
    ends = (end.address, end.port, family.pod_one, CLIENT)
    return packet(family, protocol, ends, **{**answering(protocol), **l4})


def seen(family: Family, protocol: str, **l4: Any) -> Packet:
    """The answer as pod one gets it, but for the MACs."""
    ends = (VIP[family.name], PORT, family.pod_one, CLIENT)
    return packet(family, protocol, ends, **{**answering(protocol), **l4})


def answering(protocol: str) -> dict[str, Any]:
    """What the first answer of a flow says."""
    return {"flags": "SA"} if protocol == "TCP" else {}
