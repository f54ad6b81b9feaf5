# SPDX-License-Identifier: Apache-2.0
"""Rows of the store's tables as raw records (records.py), and back."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Mapping
from typing import Any

from pycni.stores.records import VALUE_MAX, Raw
from pycni.stores.registry import HEARTBEAT_FRESH, Liveness, NodeRecord, Rival

INSTANCE = """
INSERT INTO instances VALUES (?, ?, ?, ?, ?) ON CONFLICT (node, instance) DO UPDATE SET
    vtep = CASE excluded.vtep WHEN '' THEN vtep ELSE excluded.vtep END,
    heartbeat = excluded.heartbeat, refused = excluded.refused
"""
INSTANCE_AGE = 86_400.0
"""Seconds for which an instance is remembered that is not alive any more."""
SELECT = """
SELECT name, node_id, vtep, pod_cidr4, pod_cidr6, identity,
    (SELECT group_concat(prefix, ' ') FROM
        (SELECT prefix FROM extras WHERE node = name ORDER BY prefix)),
    (SELECT list FROM addresses WHERE node = name AND addresses.vtep = nodes.vtep),
    (SELECT list FROM accepts WHERE node = name),
    heartbeat FROM nodes ORDER BY name
"""
INSERT = """
INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
    node_id = excluded.node_id, vtep = excluded.vtep, pod_cidr4 = excluded.pod_cidr4,
    pod_cidr6 = excluded.pod_cidr6, identity = excluded.identity, heartbeat = excluded.heartbeat
"""

DIGEST = 16
"""Bytes."""

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
    node_id, vtep, cidr4, cidr6, identity, extra, addresses, accepts = row
    size = sum(len(one) for one in row if isinstance(one, str))
    if size > VALUE_MAX:
        return Raw.too_large(size)
    return Raw(
        {
            "node_id": node_id,
            "vtep": vtep,
            "pod_cidrs": [cidr for cidr in (cidr4, cidr6) if cidr is not None],
            "extra": (extra or "").split(),
            "addresses": (addresses or "").split(),
            "accepts": (accepts or "").split(),
            "identity": identity,
        }
    )


def digest(row: Row) -> bytes:
    """What tells a row from another one."""
    return hashlib.blake2b(repr(row).encode(errors="surrogateescape"), digest_size=DIGEST).digest()


def liveness(
    heartbeats: Mapping[str, float], *, now: float, instances: Mapping[str, str] | None = None
) -> dict[str, Liveness]:
    """By name; `now` is the Unix time in seconds. A time in the future is now, and an infinite one
    is none. `instances` says who was last alive as a node."""
    who = instances or {}
    return {
        name: Liveness(
            alive=now - heartbeat < HEARTBEAT_FRESH,
            seen_ago=max(0.0, now - heartbeat),
            instance=who.get(name, ""),
        )
        if math.isfinite(heartbeat)
        else Liveness(alive=False)
        for name, heartbeat in heartbeats.items()
    }


def last_instances(db: sqlite3.Connection) -> dict[str, str]:
    """By node name: the instance that was alive last."""
    query = "SELECT node, instance FROM instances WHERE NOT refused ORDER BY heartbeat"
    return dict(db.execute(query).fetchall())


def other_instance(
    db: sqlite3.Connection, name: str, instance: str, *, since: float
) -> tuple[str, str] | None:
    """Instance and VTEP of another machine that was alive as this node after `since`, a Unix time
    in seconds."""
    query = """SELECT instance, vtep FROM instances
        WHERE node = ? AND instance <> ? AND heartbeat > ? ORDER BY heartbeat DESC LIMIT 1"""
    found: tuple[str, str] | None = db.execute(query, (name, instance, since)).fetchone()
    return found


def write_instance(
    db: sqlite3.Connection, name: str, rival: Rival, *, now: float, refused: bool = False
) -> None:
    """Say that a machine is alive as a node, or was refused to be. Forgets old ones."""
    db.execute("DELETE FROM instances WHERE heartbeat < ?", (now - INSTANCE_AGE,))
    db.execute(INSTANCE, (name, rival.instance, rival.vtep, now, refused))


def remove_name(db: sqlite3.Connection, name: str) -> bool:
    """Remove a node and what belongs to it, by the name that `read_rows` gives; whether it was
    there. The name may have bytes that are not UTF-8."""
    key = name.encode(errors="surrogateescape")
    for table in ("extras", "instances", "addresses", "accepts"):
        db.execute(f"DELETE FROM {table} WHERE CAST(node AS BLOB) = ?", (key,))
    return db.execute("DELETE FROM nodes WHERE CAST(name AS BLOB) = ?", (key,)).rowcount > 0


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
    # after the row in `nodes`, whose change removes it
    db.execute(
        "INSERT OR REPLACE INTO accepts VALUES (?, ?)", (record.name, " ".join(record.accepts))
    )
