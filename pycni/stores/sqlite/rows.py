# SPDX-License-Identifier: Apache-2.0
"""Rows of the store's tables as raw records (records.py), and back."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from typing import Any

from pycni.stores.records import Raw
from pycni.stores.registry import HEARTBEAT_FRESH, Liveness, NodeRecord

SELECT = """
SELECT name, node_id, vtep, pod_cidr4, pod_cidr6, identity,
    (SELECT group_concat(prefix, ' ') FROM
        (SELECT prefix FROM extras WHERE node = name ORDER BY prefix)),
    (SELECT list FROM addresses WHERE node = name AND addresses.vtep = nodes.vtep),
    heartbeat FROM nodes ORDER BY name
"""
INSERT = """
INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
    node_id = excluded.node_id, vtep = excluded.vtep, pod_cidr4 = excluded.pod_cidr4,
    pod_cidr6 = excluded.pod_cidr6, identity = excluded.identity, heartbeat = excluded.heartbeat
"""

Row = tuple[Any, ...]
"""What a record is made of, without the heartbeat."""


def read_rows(db: sqlite3.Connection) -> tuple[dict[str, Row], dict[str, float]]:
    """By name: what records are made of, and the Unix time of the last heartbeat in seconds."""
    rows: dict[str, Row] = {}
    heartbeats: dict[str, float] = {}
    for name, *row, heartbeat in db.execute(SELECT):
        rows[name] = tuple(row)
        heartbeats[name] = heartbeat
    return rows, heartbeats


def raw(row: Row) -> Raw:
    """A row as an unchecked record. The tables are STRICT, so types are right, and nothing else."""
    node_id, vtep, cidr4, cidr6, identity, extra, addresses = row
    return Raw(
        {
            "node_id": node_id,
            "vtep": vtep,
            "pod_cidrs": [cidr for cidr in (cidr4, cidr6) if cidr is not None],
            "extra": (extra or "").split(),
            "addresses": (addresses or "").split(),
            "identity": identity,
        }
    )


def liveness(heartbeats: Mapping[str, float], *, now: float) -> dict[str, Liveness]:
    """By name; `now` is the Unix time in seconds. A time in the future is now, and an infinite one
    is none."""
    return {
        name: Liveness(alive=now - heartbeat < HEARTBEAT_FRESH, seen_ago=max(0.0, now - heartbeat))
        if math.isfinite(heartbeat)
        else Liveness(alive=False)
        for name, heartbeat in heartbeats.items()
    }


def write_row(
    db: sqlite3.Connection, record: NodeRecord, *, identity: str, heartbeat: float
) -> None:
    """Write a record and what it published. The caller holds the transaction."""
    cidrs = {cidr.version: str(cidr) for cidr in record.pod_cidrs}
    row = (record.name, record.node_id, str(record.vtep), cidrs.get(4), cidrs.get(6))
    db.execute(INSERT, (*row, identity, heartbeat))
    db.execute("DELETE FROM extras WHERE node = ?", (record.name,))
    extras = [(str(prefix), record.name) for prefix in record.extra]
    db.executemany("INSERT OR REPLACE INTO extras VALUES (?, ?)", extras)
    addresses = " ".join(map(str, record.addresses))
    db.execute(
        "INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)",
        (record.name, str(record.vtep), addresses),
    )
