# SPDX-License-Identifier: Apache-2.0
"""What to change so that a table becomes as wanted, and in which order.

Pure: no netlink, no bpf(2), no clock. Two rules hold for every table: entries are written before
others are deleted, so that nothing reachable is unreachable in between; and a source that has not
listed everything yet may add but never delete, so that a restart or a broken store never empties a
dataplane that works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")
K_contra = TypeVar("K_contra", contravariant=True)
V_contra = TypeVar("V_contra", contravariant=True)


@dataclass(frozen=True)
class Plan(Generic[K, V]):
    """The difference between what is and what shall be; falsy when there is none."""

    upserts: Mapping[K, V]
    deletes: tuple[K, ...]

    def __bool__(self) -> bool:
        return bool(self.upserts or self.deletes)


class Table(Protocol[K_contra, V_contra]):
    """Where a plan is applied; `remove` of an absent key is no error."""

    def put(self, key: K_contra, value: V_contra) -> object: ...

    def remove(self, key: K_contra) -> object: ...


def plan(have: Mapping[K, V], want: Mapping[K, V], *, synced: bool) -> Plan[K, V]:
    """What turns `have` into `want`. Until `synced` (the source's first list is complete) keys
    missing in `want` are kept, not deleted."""
    upserts = {key: value for key, value in want.items() if key not in have or have[key] != value}
    deletes = tuple(key for key in have if key not in want) if synced else ()
    return Plan(upserts, deletes)


def apply(changes: Plan[K, V], table: Table[K, V]) -> None:
    """Puts all upserts, then removes. A failing put raises before anything is removed."""
    for key, value in changes.upserts.items():
        table.put(key, value)
    for key in changes.deletes:
        table.remove(key)
