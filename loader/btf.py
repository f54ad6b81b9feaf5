# SPDX-License-Identifier: Apache-2.0
"""Reads BTF, the type information of objects and pinned maps: enums, struct layouts, map layouts.

Format: Documentation/bpf/btf.rst. Reads only; values are in the byte order of this machine, as
objects and kernel are. Needs no privileges for object files.
"""

from __future__ import annotations

import struct as packing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import bpf, libbpf
from .errors import REINSTALL, LayoutError

INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FORWARD, TYPEDEF = range(1, 9)
VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT = range(9, 17)
DECL_TAG, TYPE_TAG, ENUM64 = range(17, 20)

_MAGIC = 0xEB9F
_TRANSPARENT = frozenset({TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG})
_FIXED_TAIL = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
_TAIL_PER_MEMBER = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}


class Member(NamedTuple):
    """A struct member; offset and size in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Type:
    """One record: `target` is its size (INT, STRUCT, ENUM...) or the id of another type."""

    kind: int
    name: str
    flag: bool
    target: int
    count: int
    tail: bytes


@dataclass(frozen=True)
class Types:
    """All types of one object or map; the id of a type is its index, 0 is void."""

    types: tuple[Type, ...]
    strings: bytes

    def find(self, kind: int, name: str) -> int:
        """Id of a named type; LayoutError if there is none."""
        for number, item in enumerate(self.types):
            if item.kind == kind and item.name == name:
                return number
        raise LayoutError(f"no type {name} in the type information", hint=REINSTALL)

    def resolve(self, number: int) -> int:
        """Id of what typedefs and qualifiers stand for."""
        while self.types[number].kind in _TRANSPARENT:
            number = self.types[number].target
        return number

    def size(self, number: int) -> int:
        """Size of a type in bytes."""
        item = self.types[self.resolve(number)]
        if item.kind == POINTER:
            return 8
        if item.kind == ARRAY:
            element, _, length = packing.unpack("=3I", item.tail)
            return int(length) * self.size(element)
        return item.target

    def members(self, number: int) -> list[tuple[Member, int]]:
        """Members of a struct or union, each with the id of its type."""
        item = self.types[self.resolve(number)]
        found = []
        for name, kind, bits in packing.iter_unpack("=3I", item.tail):
            offset = bits & 0xFFFFFF if item.flag else bits
            found.append((Member(self._string(name), offset // 8, self.size(kind)), kind))
        return found

    def describe(self, number: int) -> str:
        """The type with all nested members and offsets, equal for equal layouts."""
        number = self.resolve(number)
        item = self.types[number]
        if item.kind in (STRUCT, UNION):
            inner = ", ".join(
                f"{member.name} {self.describe(kind)} @{member.offset}"
                for member, kind in self.members(number)
            )
            return f"{'struct' if item.kind == STRUCT else 'union'} {item.name} {{{inner}}}"
        if item.kind == ARRAY:
            element, _, length = packing.unpack("=3I", item.tail)
            return f"{self.describe(element)}[{length}]"
        if item.kind == INT:
            return f"{'s' if self.is_signed(number) else 'u'}{item.target * 8}"
        return f"{item.name or 'type'}:{self.size(number)}"

    def is_signed(self, number: int) -> bool:
        """Whether a type is a signed integer."""
        item = self.types[self.resolve(number)]
        return item.kind == INT and bool(packing.unpack("=I", item.tail)[0] >> 24 & 1)

    def enum(self, name: str) -> dict[str, int]:
        """Names and values of an enum, in order; struct btf_enum holds them as __s32.

        LayoutError if there is none of that name.
        """
        pairs = packing.iter_unpack("=Ii", self.types[self.find(ENUM, name)].tail)
        return {self._string(name): value for name, value in pairs}

    def _string(self, offset: int) -> str:
        return self.strings[offset : self.strings.index(b"\0", offset)].decode()


def parse(raw: bytes) -> Types:
    """Parse raw BTF; LayoutError if it is none."""
    if len(raw) < 24 or packing.unpack_from("=H", raw)[0] != _MAGIC:
        raise LayoutError("not BTF in the byte order of this machine", hint=REINSTALL)
    header, type_start, type_length, string_start, string_length = packing.unpack_from(
        "=5I", raw, 4
    )
    strings = raw[header + string_start :][:string_length]
    types = [Type(0, "void", flag=False, target=0, count=0, tail=b"")]
    at, end = header + type_start, header + type_start + type_length
    while at < end:
        name, info, target = packing.unpack_from("=3I", raw, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        size = _FIXED_TAIL.get(kind, count * _TAIL_PER_MEMBER.get(kind, 0))
        text = strings[name : strings.index(b"\0", name)].decode()
        tail = raw[at + 12 : at + 12 + size]
        types.append(Type(kind, text, bool(info >> 31), target, count, tail))
        at += 12 + size
    return Types(tuple(types), strings)


def of_object(path: Path) -> Types:
    """All types of an object file. OSError if it has none, LayoutError if they cannot be read."""
    return parse(libbpf.object_btf(path))


def map_layout(info: bpf.MapInfo, types: Types | None) -> str:
    """Everything that two maps must share to be used by one program, in words.

    max_entries is left out: a map of another size has the same layout. Without types (a map
    made without BTF) only the sizes are told.
    """
    return f"{info.type_name}, flags {info.flags:#x}, {entry_layout(info, types)}"


def entry_layout(info: bpf.MapInfo, types: Types | None) -> str:
    """What two maps must share for the entries of one to be those of the other, in words."""
    parts = []
    described = (
        ("key", info.key_size, info.btf_key_type_id),
        ("value", info.value_size, info.btf_value_type_id),
    )
    for what, size, number in described:
        inner = f" {types.describe(number)}" if types and number else ""
        parts.append(f"{what} {size} bytes{inner}")
    return ", ".join(parts)


def types_of_map(info: bpf.MapInfo) -> Types | None:
    """Types of a loaded map; None if it was made without BTF."""
    return parse(libbpf.kernel_btf(info.btf_id)) if info.btf_id else None
