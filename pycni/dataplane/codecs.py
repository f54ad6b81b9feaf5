# SPDX-License-Identifier: Apache-2.0
"""How the entries of a pinned map look in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pycni.dataplane.records import Layout

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Key(Generic[K]):
    """How the keys of a map look in memory, `size` bytes each, and what they are called.

    `name` is empty if the map has only one entry.
    """

    name: str
    size: int
    pack: Callable[[K], bytes]
    unpack: Callable[[bytes], K]


class Value(Protocol[V]):
    """How the values of a map look in memory."""

    layout: Layout

    def pack(self, value: V, /) -> bytes: ...

    def unpack(self, raw: bytes, /) -> V: ...


@dataclass(frozen=True)
class Codec(Generic[K, V]):
    """How the entries of one map look in memory."""

    key: Key[K]
    value: Value[V]
    is_sparse: bool = False
    """Of an array, in which a value of zeros is no entry."""
