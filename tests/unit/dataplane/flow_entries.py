# SPDX-License-Identifier: Apache-2.0
"""Entries of the map `flows` for tests, both halves of each connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from struct import Struct

from pycni.dataplane import flows
from pycni.dataplane.abi import FlowFlag
from pycni.dataplane.flows import Flows
from pycni.dataplane.service_maps import FLOWS, NAMES, Backend, FlowKey

VALUE = Struct("=40sQIIH6x")
NUMBERS = {name: number for number, name in NAMES.items()}
NONE = FlowFlag(0)
NOW = 50_000 * flows.SECOND
POD, VIP, END = "10.244.1.2", "10.96.0.10", "10.244.2.7"
POD6, VIP6, END6 = "fd00:10:244:1::2", "fd00:96::10", "fd00:10:244:2::7"


def key(src: str, sport: int, dst: str, dport: int, protocol: str = "TCP") -> FlowKey:
    return FlowKey(ip_address(src), sport, ip_address(dst), dport, NUMBERS[protocol])


def entry(to: FlowKey, flags: int, *, expires: int, backend: int, generation: int) -> bytes:
    return VALUE.pack(FLOWS.key.pack(to), expires, backend, generation, flags)


@dataclass
class Entries:
    """The maps in memory, in place of a node's."""

    held: dict[bytes, bytes] = field(default_factory=dict)
    backends: dict[int, Backend] = field(default_factory=dict)

    def put(
        self, packet: FlowKey, to: FlowKey, flags: FlowFlag = NONE, *,
        seconds: int = 1000, backend: int = 0,
    ) -> None:  # fmt: skip
        """A connection whose entries expire in `seconds`, to a backend of generation 1."""
        back, seen = _turned(to), _turned(packet)
        more = {"expires": NOW + seconds * flows.SECOND, "backend": backend, "generation": 1}
        self.held[FLOWS.key.pack(packet)] = entry(to, flags | FlowFlag.REQUEST, **more)
        self.held[FLOWS.key.pack(back)] = entry(seen, flags, **more)

    def opened(self) -> Flows:
        made = Flows.__new__(Flows)
        vars(made).update(_flows=self, _backends=_Backends(self.backends), _close=self)
        return made

    def raw(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self.held.items()

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class _Backends:
    ones: Mapping[int, Backend]

    def get(self, index: int) -> Backend | None:
        return self.ones.get(index)


def _turned(one: FlowKey) -> FlowKey:
    return FlowKey(one.dst, one.dport, one.src, one.sport, one.protocol)
