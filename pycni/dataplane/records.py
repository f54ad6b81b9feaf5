# SPDX-License-Identifier: Apache-2.0
"""Records of C as values of Python: layouts, and how a dataclass is packed into one.

Addresses are 16 bytes in network order, IPv4 as v4-mapped (RFC 4291, 2.5.5.2); integers are in host
order. Everything about a layout is decided once, when a `Record` is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import IntFlag
from ipaddress import IPv4Address, IPv6Address
from operator import attrgetter
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

from pycni.cluster import IPAddress

T = TypeVar("T")

V4_MAPPED = bytes(10) + b"\xff\xff"


class Layout(NamedTuple):
    """A struct of bpf/lib/types.h: its format for module struct, and each member with its kind.

    Kinds are "int", "address" (union ip_addr), "mac", "port" (__be16), "bytes", "struct NAME", or
    an IntFlag whose members are booleans in Python.
    """

    name: str
    format: str
    fields: tuple[tuple[str, str | type[IntFlag]], ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return Struct(self.format).size

    def place(self, name: str) -> range:
        """The bytes of a member. Raises ValueError if there is none of that name."""
        formats = re.findall(r"\d*[a-zA-Z]", self.format)
        ends = [Struct(f"={''.join(formats[:count])}").size for count in range(len(formats) + 1)]
        kept = [at for at, one in enumerate(formats) if not one.endswith("x")]
        at = kept[[field for field, _ in self.fields].index(name)]
        return range(ends[at], ends[at + 1])

    @property
    def names(self) -> tuple[str, ...]:
        """The members as Python has them, each flag as a member of its own."""
        names: list[str] = []
        for name, kind in self.fields:
            names += [name] if isinstance(kind, str) else [flag for flag, _ in flags(kind)]
        return tuple(names)


def flags(kind: type[IntFlag]) -> list[tuple[str, int]]:
    """The names of flags as booleans, each with its bit."""
    return [(name.lower(), int(flag)) for name, flag in kind.__members__.items()]


def pack_address(address: IPAddress) -> bytes:
    """16 bytes, network order, IPv4 as v4-mapped."""
    return V4_MAPPED + address.packed if address.version == 4 else address.packed


def unpack_address(raw: bytes) -> IPAddress:
    """The inverse of `pack_address`."""
    return IPv4Address(raw[12:]) if raw[:12] == V4_MAPPED else IPv6Address(raw)


def pack_mac(mac: str) -> bytes:
    """6 bytes, in the order in which they are sent."""
    return bytes.fromhex(mac.replace(":", ""))


def unpack_mac(raw: bytes) -> str:
    """The inverse of `pack_mac`."""
    return raw.hex(":")


def pack_port(port: int) -> bytes:
    """2 bytes, network order."""
    return port.to_bytes(2, "big")


def unpack_port(raw: bytes) -> int:
    """The inverse of `pack_port`."""
    return int.from_bytes(raw, "big")


def as_it_is(value: Any) -> Any:
    """For members that are numbers."""
    return value


PACK: Mapping[str, Callable[[Any], Any]] = {
    "address": pack_address,
    "mac": pack_mac,
    "port": pack_port,
}
UNPACK: Mapping[str, Callable[[Any], Any]] = {
    "address": unpack_address,
    "mac": unpack_mac,
    "port": unpack_port,
}


class Record(Generic[T]):
    """Packs and unpacks a dataclass whose fields are the members of a layout, in their order.

    `convert` says what a number or a struct of the layout is in Python, by the member's name.
    Raises TypeError if the dataclass has other fields.
    """

    def __init__(self, layout: Layout, cls: type[T], **convert: Callable[[Any], object]) -> None:
        names = tuple(field.name for field in fields(cls))  # type: ignore[arg-type]
        if names != layout.names:
            raise TypeError(f"struct {layout.name} has {layout.names}, {cls.__name__} has {names}")
        self.layout = layout
        self._class = cls
        self._struct = Struct(layout.format)
        self._pack = [_packer(name, kind) for name, kind in layout.fields]
        self._unpack = [_unpacker(kind, convert.get(name)) for name, kind in layout.fields]

    def pack(self, value: T) -> bytes:
        """The struct of a value."""
        return self._struct.pack(*[pack(value) for pack in self._pack])

    def unpack(self, raw: bytes) -> T:
        """The value of a struct."""
        members: list[Any] = []
        for unpack, member in zip(self._unpack, self._struct.unpack(raw), strict=True):
            members += unpack(member)
        return self._class(*members)


class Only:
    """Packs and unpacks the value of a layout that has one member only."""

    def __init__(self, layout: Layout) -> None:
        ((_, kind),) = layout.fields
        self.layout = layout
        self._struct = Struct(layout.format)
        self._pack = PACK.get(str(kind), as_it_is)
        self._unpack = UNPACK.get(str(kind), as_it_is)

    def pack(self, value: Any) -> bytes:
        """The struct of a value."""
        return self._struct.pack(self._pack(value))

    def unpack(self, raw: bytes) -> Any:
        """The value of a struct."""
        return self._unpack(self._struct.unpack(raw)[0])


def pack_members(layout: Layout, members: Mapping[str, Any]) -> bytes:
    """A struct from all of its members by name; bytes are taken as they are.

    Raises KeyError for a member that is missing, ValueError for one that the struct does not have.
    """
    unknown = members.keys() - dict(layout.fields)
    if unknown:
        raise ValueError(f"struct {layout.name} has no {', '.join(sorted(unknown))}")
    values = []
    for name, kind in layout.fields:
        value = members[name]
        packed = isinstance(value, bytes) or not isinstance(kind, str)
        values.append(value if packed else PACK.get(str(kind), as_it_is)(value))
    return Struct(layout.format).pack(*values)


def _packer(name: str, kind: str | type[IntFlag]) -> Callable[[Any], Any]:
    """From a value to one member of a struct."""
    if not isinstance(kind, str):
        bits = flags(kind)
        return lambda value: sum(bit for flag, bit in bits if getattr(value, flag))
    get = attrgetter(name)
    pack = PACK.get(kind)
    return get if pack is None else lambda value: pack(get(value))


def _unpacker(
    kind: str | type[IntFlag], convert: Callable[[Any], object] | None
) -> Callable[[Any], Sequence[Any]]:
    """From a member of a struct to what it is in Python: one field, or several if it has flags."""
    if not isinstance(kind, str):
        bits = [bit for _, bit in flags(kind)]
        return lambda member: [member & bit != 0 for bit in bits]
    unpack = convert or UNPACK.get(kind, as_it_is)
    return lambda member: (unpack(member),)
