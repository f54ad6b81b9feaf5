# SPDX-License-Identifier: Apache-2.0
"""Maps as rows for people and programs: typed fields, addresses as addresses, reasons by name.

Names of programs, reasons and paths are read from the BTF of the pinned maps, so there is no second
list of them. Reads only.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, is_dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from struct import Struct
from typing import Any

from loader import btf, pins
from loader.bpf import Map
from pycni.dataplane import abi, maps
from pycni.dataplane.records import Layout
from pycni.dataplane.service_maps import FlowKey
from pycni.errors import NotAvailable

Row = dict[str, Any]


@dataclass(frozen=True)
class Counters:
    """A map of counters per CPU, [attach_point * enumerators + enumerator]; what `enum` counts is
    in `column`."""

    enum: str
    column: str
    layout: Layout


COUNTERS = {
    "drops": Counters("drop_reason", "reason", abi.DROP_COUNT),
    "forwarded": Counters("packet_path", "path", abi.PATH_COUNT),
}
WITH_UNIT = {"fresh_until": "fresh_until_ns", "expires": "expires_ns", "affinity": "affinity_s"}
"""Members of entries whose names in C do not say their unit."""
NORMAL = frozenset({"MULTICAST", "UNANSWERED_PROBE"})
"""Reasons of drops, as they are spelled, of packets that every host sends: nothing is wrong."""
NAMES = (*maps.TABLES, *COUNTERS)
"""The maps that have a reader."""
OPTIONAL = frozenset({"sockets"})
"""Those of them that not every node has."""


def describe(root: Path, name: str) -> Row:
    """One map: its type, how many entries it has and may have, and where it is pinned."""
    with maps.open_map(root, name) as opened:
        info = opened.info
        return {
            "name": name,
            "type": info.type_name,
            "entries": _count(opened, name),
            "max_entries": info.max_entries,
            "pin": str(pins.map_path(root, name)),
        }


def _count(opened: Map, name: str) -> int:
    if name in maps.TABLES and maps.TABLES[name].is_sparse:
        return sum(map(any, opened.entries().values()))
    return len(opened.keys())


def dump(root: Path, name: str) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of a map, in an order that does not change with the map, and their columns.

    Raises NotAvailable if the node is not loaded.
    """
    if name in COUNTERS:
        counters = COUNTERS[name]
        columns = ("program", counters.column, *counters.layout.names)
        rows = _read_counters(root, name)
    else:
        codec = maps.TABLES[name]
        columns = (*filter(None, [codec.key.name]), *map(_column, codec.value.layout.names))
        rows = _read_table(root, name)
    return sorted(rows, key=lambda row: [_rank(str(row[key])) for key in columns[:2]]), columns


@dataclass(frozen=True)
class Names:
    """The names behind an index into a table of counters: program, and reason or path."""

    points: dict[int, str]
    columns: dict[int, str]

    @classmethod
    def of(cls, root: Path, name: str, enum: str) -> Names:
        """As in the BTF of map `name`: `DROP_WRONG_VNI` of drop_reason reads "wrong vni"."""
        with maps.open_map(root, name) as table:
            types = btf.types_of_map(table.info)
        if types is None:
            raise NotAvailable(f"the map {name} was loaded without BTF", hint="run: pycni setup")
        points = types.enum("attach_point")
        columns = types.enum(enum)
        return cls(
            {value: name.lower() for name, value in points.items()},
            {
                value: name.partition("_")[2].lower().replace("_", " ")
                for name, value in columns.items()
            },
        )


def spelled(name: str) -> str:
    """The name of a drop reason or path as bpf/README.md has it: "wrong vni" is WRONG_VNI."""
    return name.upper().replace(" ", "_")


def _rank(value: str) -> tuple[int, Any]:
    """Networks and addresses by number, IPv4 first; then words."""
    try:
        network = ip_network(value)
        return network.version, (network.network_address.packed, network.prefixlen)
    except ValueError:
        return 9, value


def _column(name: str) -> str:
    return WITH_UNIT.get(name, name)


def _cell(value: Any) -> Any:
    """A member of an entry; addresses and flows as text."""
    return str(value) if isinstance(value, IPv4Address | IPv6Address | FlowKey) else value


def _read_table(root: Path, name: str) -> list[Row]:
    codec = maps.TABLES[name]
    names = codec.value.layout.names
    rows = []
    with maps.open_table(root, name) as table:
        for key, value in table.items():
            head = {codec.key.name: str(key)} if codec.key.name else {}
            members = [getattr(value, one) for one in names] if is_dataclass(value) else [value]
            rows.append(head | dict(zip(map(_column, names), map(_cell, members), strict=True)))
    return rows


def _read_counters(root: Path, name: str) -> list[Row]:
    """Only what was counted at all: most reasons never happen."""
    counters = COUNTERS[name]
    names = Names.of(root, name, counters.enum)
    width = max(names.columns)  # the enumerator behind the last
    unpack = Struct(counters.layout.format).unpack
    rows = []
    with maps.open_map(root, name) as table:
        for key, values in table.items_percpu():
            sums = [sum(one) for one in zip(*map(unpack, values), strict=True)]
            if any(sums):
                point, number = divmod(int.from_bytes(key, sys.byteorder), width)
                head = {"program": names.points[point], counters.column: names.columns[number]}
                rows.append(head | dict(zip(counters.layout.names, sums, strict=True)))
    return rows
