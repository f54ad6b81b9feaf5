"""Maps as rows for people and programs: typed fields, addresses as addresses, reasons by name.

Names of programs, reasons and paths are read from the BTF of the pinned maps, so there is no second
list of them. Reads only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from struct import Struct
from typing import Any

from loader import btf, pins
from pycni.dataplane import maps
from pycni.dataplane.maps import (
    DROP_COUNT_FORMAT,
    PATH_COUNT_FORMAT,
)
from pycni.errors import NotAvailable

Row = dict[str, Any]

NAMES = ("endpoints", "remotes", "vteps", "nexthops", "drops", "forwarded")


def describe(root: Path, name: str) -> Row:
    """One map: its type, how many entries it has and may have, and where it is pinned."""
    with maps.open_map(root, name) as opened:
        info = opened.info
        return {
            "name": name,
            "type": info.type_name,
            "entries": len(opened.keys()),
            "max_entries": info.max_entries,
            "pin": str(pins.map_path(root, name)),
        }


def dump(root: Path, name: str) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of a map, in an order that does not change with the map, and their columns.

    Raises NotAvailable if the node is not loaded.
    """
    reader, columns = READERS[name]
    rows = sorted(reader(root), key=lambda row: [_rank(str(row[key])) for key in columns[:2]])
    return rows, columns


@dataclass(frozen=True)
class Names:
    """What the two numbers mean of which the index into a table of counters is made."""

    points: dict[int, str]
    columns: dict[int, str]

    @classmethod
    def of(cls, root: Path, name: str, enum: str) -> Names:
        """As in the BTF of map `name`: `DROP_WRONG_VNI` of drop_reason reads "wrong vni"."""
        with maps.open_map(root, name) as table:
            types = btf.types_of_map(table.info)
        if types is None:
            raise NotAvailable(f"the map {name} was loaded without BTF", hint="run: pycni setup")
        points = types.enumerators(types.find(btf.ENUM, "attach_point"))
        columns = types.enumerators(types.find(btf.ENUM, enum))
        return cls(
            {value: name.lower() for name, value in points.items()},
            {
                value: name.partition("_")[2].lower().replace("_", " ")
                for name, value in columns.items()
            },
        )


def _rank(value: str) -> tuple[int, Any]:
    """Networks and addresses by number, IPv4 first; then words."""
    try:
        network = ip_network(value)
        return network.version, (network.network_address.packed, network.prefixlen)
    except ValueError:
        return 9, value


def _read_endpoints(root: Path) -> list[Row]:
    with maps.open_endpoints(root) as table:
        return [{"address": str(address), **vars(value)} for address, value in table.items()]


def _read_remotes(root: Path) -> list[Row]:
    with maps.open_remotes(root) as table:
        return [{"prefix": str(prefix), "vtep": str(vtep)} for prefix, vtep in table.items()]


def _read_vteps(root: Path) -> list[Row]:
    with maps.open_vteps(root) as table:
        return [{"vtep": str(vtep), "node": number} for vtep, number in table.items()]


def _read_nexthops(root: Path) -> list[Row]:
    with maps.open_nexthops(root) as table:
        return [{"vtep": str(vtep), **vars(hop)} for vtep, hop in table.items()]


def _read_drops(root: Path) -> list[Row]:
    return _read_counters(root, "drops", "drop_reason", "reason", DROP_COUNT_FORMAT)


def _read_forwarded(root: Path) -> list[Row]:
    return _read_counters(root, "forwarded", "packet_path", "path", PATH_COUNT_FORMAT)


def _read_counters(root: Path, name: str, enum: str, column: str, layout: Struct) -> list[Row]:
    """Only what was counted at all: most reasons never happen."""
    names = Names.of(root, name, enum)
    width = max(names.columns)  # the enumerator behind the last
    rows = []
    with maps.open_map(root, name) as table:
        for key, values in table.items_percpu():
            counts = [layout.unpack(value) for value in values]
            packets, size = (sum(one) for one in zip(*counts, strict=True))
            if packets:
                point, number = divmod(int.from_bytes(key, sys.byteorder), width)
                rows.append(
                    {
                        column: names.columns[number],
                        "program": names.points[point],
                        "packets": packets,
                        "bytes": size,
                    }
                )
    return rows


READERS: dict[str, tuple[Callable[[Path], list[Row]], tuple[str, ...]]] = {
    "endpoints": (
        _read_endpoints,
        ("address", "ifindex", "mac", "masquerade", "shaped", "forwards"),
    ),
    "remotes": (_read_remotes, ("prefix", "vtep")),
    "vteps": (_read_vteps, ("vtep", "node")),
    "nexthops": (_read_nexthops, ("vtep", "ifindex", "dst_mac", "src_mac", "mtu", "used")),
    "drops": (_read_drops, ("reason", "program", "packets", "bytes")),
    "forwarded": (_read_forwarded, ("program", "path", "packets", "bytes")),
}
