# SPDX-License-Identifier: Apache-2.0
"""Rows for people and programs, made of what the typed readers find.

One vocabulary: a key means the same in every noun, `program` is the name of a BPF program as its
file has it, and a drop reason or path is spelled as in bpf/README.md (`SPOOFED_SOURCE`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from loader import pins
from pycni.cli.output import cell, to_json
from pycni.cluster import IPAddress
from pycni.dataplane import dumps, events
from pycni.dataplane import maps as tables
from pycni.dataplane.dumps import spelled
from pycni.dataplane.events import Lost
from pycni.errors import NotAvailable
from pycni.kernel.rtnl import Rtnl
from pycni.node import next_hops, overlay_guard, report
from pycni.pods import port_records, port_table
from pycni.pods.lease import leases
from pycni.settings import Settings
from pycni.stores import Liveness, NodeRecord, open_store

Row = dict[str, Any]

NFT = "nft"
"""The name of nftables beside those of programs."""

SPELLED = ("reason", "path")
"""Columns with the names of enumerators."""


def endpoints(settings: Settings) -> list[Row]:
    """The pods of this node by container, one row per address. Raises NotAvailable."""
    with Rtnl() as ipr, tables.open_endpoints(settings.pin_root) as table:
        held = {lease.ifindex: lease for lease in leases(ipr)}
        names = {link.ifindex: link.ifname for link in ipr.links()}
        rows = []
        for address, endpoint in table.items():
            lease = held.get(endpoint.ifindex)
            rows.append(
                {
                    "address": str(address),
                    "container": lease.container_id if lease else "",
                    "network": lease.network if lease else "",
                    "interface": lease.ifname if lease else "",
                    "host_interface": names.get(endpoint.ifindex, "gone"),
                    **vars(endpoint),
                }
            )
    return sorted(rows, key=lambda row: (row["container"], row["address"]))


def ports(settings: Settings) -> list[Row]:
    """The node's ports that lead to pods, by port. Raises NotAvailable or SetupError.

    `pod_name` is "namespace/name", empty where the runtime did not tell.
    """
    names = {
        forward.pod: record.pod
        for record in port_records.read_all(settings).by_digest.values()
        for forward in record.forwards
    }
    rows = [
        {
            "port": forward.host_port,
            "protocol": forward.protocol,
            "address": str(forward.host_ip or ""),
            "pod": str(forward.pod),
            "pod_port": forward.pod_port,
            "pod_name": names.get(forward.pod, ""),
            "container": forward.owner,
        }
        for forward in port_table.forwards()
    ]
    keys = ("port", "protocol", "address", "pod")
    return sorted(rows, key=lambda row: [row[key] for key in keys])


def nodes(settings: Settings) -> list[Row]:
    """The nodes of the cluster by name. Raises StoreError.

    Of a record that is set aside, `rejected` says why, and what it claims is not shown. `answers`
    and `forwards` are what this node's agent found when it asked the other: at its address, and
    through the overlay; None if it did not ask. `mode` is how packets to it leave this node: in
    "vxlan", in "ipip" or "direct", without either; None for this node itself, and if nothing is
    loaded. `seen_seconds_ago` is from the last sign of life, to the store or to this node; None if
    neither knows of one.
    """
    listing = open_store(settings.store_url, settings.cluster, create=False).listing()
    valid = {node.name: node for node in listing.nodes}
    told = report.read(settings)
    aside = report.table(told, report.SET_ASIDE)
    asked = {row.get("name"): row for row in report.table(told, report.PEERS).values()}
    modes: Mapping[IPAddress, str] = {}
    with suppress(NotAvailable):
        modes = next_hops.modes(settings)
    return [
        _node(name, valid.get(name), liveness, asked.get(name, {}), modes,
              rejected=listing.rejected.get(name) or aside.get(name))
        for name, liveness in listing.liveness.items()
    ]  # fmt: skip


def _node(
    name: str,
    node: NodeRecord | None,
    liveness: Liveness,
    asked: Row,
    modes: Mapping[IPAddress, str],
    *,
    rejected: str | None,
) -> Row:
    seen = [] if liveness.seen_ago is None else [liveness.seen_ago]
    if isinstance(asked.get("seen"), float):
        seen.append(max(0.0, time.monotonic() - asked["seen"]))
    return {
        "name": name,
        "id": node and node.node_id,
        "vtep": node and str(node.vtep),
        "pod_cidrs": [str(cidr) for cidr in node.networks] if node else None,
        "mode": node and modes.get(node.vtep),
        "agent": "alive" if liveness.alive else "silent",
        "answers": asked.get("answers"),
        "forwards": asked.get("forwards"),
        "seen_seconds_ago": round(min(seen)) if seen else None,
        "rejected": rejected,
    }


def pools(settings: Settings) -> tuple[list[Row], str]:
    """The pools that nodes claim blocks of; and why there are none, if so. Raises StoreError."""
    registry = open_store(settings.store_url, settings.cluster, create=False).blocks()
    if registry is None:
        return [], (
            f"no pools: each node of the cluster in {settings.store_url} has one network of each "
            "IP version for its pods, and claims no blocks (docs/pools.md)"
        )
    found = [
        {
            "name": one.name,
            "cidr": str(one.cidr or ""),
            "blocks": one.blocks,
            "claimed": one.claimed,
            "silent_nodes": list(one.silent),
            "state": one.state,
        }
        for one in registry.census()
    ]
    why = "no pools: nobody has made an IPPool yet, so no node gets addresses (docs/pools.md)"
    return found, "" if found else why


def maps(settings: Settings) -> list[Row]:
    """The pinned maps. An array is always full, so its number of entries says nothing: None.

    Raises NotAvailable.
    """
    root = settings.pin_root
    names = [one for one in dumps.NAMES if one not in dumps.OPTIONAL or pins.has_map(root, one)]
    rows = [dumps.describe(root, name) for name in names]
    return [row | {"entries": None} if "array" in row["type"] else row for row in rows]


def entries(settings: Settings, name: str) -> tuple[list[Row], tuple[str, ...]]:
    """The entries of the map `name`, and their columns. Raises NotAvailable."""
    rows, columns = dumps.dump(settings.pin_root, name)
    return [_spell(row) for row in rows], columns


def drops(settings: Settings) -> tuple[list[Row], tuple[str, ...]]:
    """What the programs dropped, and the guard of the overlay in the host's stack; and the columns.

    Only what was dropped at all; `normal` are reasons of packets that every host sends. Raises
    NotAvailable or SetupError.
    """
    rows, columns = entries(settings, "drops")
    for reason, count in overlay_guard.drops().items():
        if count.packets:
            rows.append({"program": NFT, "reason": spelled(reason), **vars(count)})
    rows = [row | {"normal": row["reason"] in dumps.NORMAL} for row in rows]
    return sorted(rows, key=lambda row: row["normal"]), (*columns, "normal")


def drop_events(settings: Settings) -> Iterator[Row]:
    """A sample of drops as they happen, for ever. Raises NotAvailable or TryAgain.

    `time` is of the wall clock, in UTC; `head` is the packet from its Ethernet header on, in hex. A
    row with the key `lost` alone says how many events were lost at this place.
    """
    for event in events.follow(settings):
        if isinstance(event, Lost):
            yield {"lost": event.count}
            continue
        yield {
            "time": event.utc,
            "program": event.program,
            "reason": spelled(event.reason),
            "interface": _ifname(event.ifindex),
            "ifindex": event.ifindex,
            "length": event.length,
            "head": event.head.hex(),
        }


def line(row: Row, *, as_json: bool) -> str:
    """One event on one line."""
    if as_json:
        return to_json(row, indent=None)
    if "lost" in row:
        return f"{row['lost']} events were lost here"
    words = [f"{key}={cell(row[key])}" for key in ("interface", "length", "head")]
    return " ".join((row["time"], row["program"], row["reason"], *words))


def _spell(row: Row) -> Row:
    return row | {key: spelled(row[key]) for key in SPELLED if key in row}


def _ifname(ifindex: int) -> str | None:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return None
