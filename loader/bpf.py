# SPDX-License-Identifier: Apache-2.0
"""BPF objects and programs, and beside them the maps and ring buffers of loader.maps.

Every descriptor here is owned by one object, is close-on-exec, and is closed by `close()` or
the end of its `with`. Keys and values are bytes in the layout of the C structs. Failed calls
raise OSError with the kernel's errno unless a docstring says otherwise.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import libbpf
from .closing import Closing
from .errors import REINSTALL, REPORT, KernelError, LayoutError, LoaderError, VerifierError
from .libbpf import check, library, possible_cpus, text
from .maps import Descriptor, Map, MapInfo, RingBuffer, open_pin, own_map

__all__ = [
    "Map",
    "MapInfo",
    "Object",
    "Program",
    "ProgramInfo",
    "RingBuffer",
    "TestRun",
    "load_instructions",
    "possible_cpus",
]

LOG_TAIL_LINES = 40
_PROGRAM_INFO = struct.Struct("=2I8s2I3Q2IQ16s")  # head of struct bpf_prog_info


SKB_OFFSETS = {
    "mark": 8,
    "priority": 32,
    "ingress_ifindex": 36,
    "ifindex": 40,
    "wire_len": 160,
    "gso_segs": 164,
    "gso_size": 176,
}
"""Bytes into struct __sk_buff, linux/bpf.h, of what a test run may set."""


@dataclass(frozen=True)
class ProgramInfo:
    """What the kernel says of a program; `name` is cut to 15 characters."""

    name: str
    id: int
    tag: str
    jited: bool


@dataclass(frozen=True)
class TestRun:
    """Result of `Program.test_run`: `action` is the TC action, `packet` starts at Ethernet."""

    __test__ = False  # not a test case, whatever its name begins with

    action: int
    packet: bytes
    mark: int
    priority: int
    cb: tuple[int, int, int, int, int]
    duration_ns: int


class Program(Descriptor):
    """A loaded program. `name` is the name given by who opened it, not cut by the kernel."""

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd)
        self.name = name

    @classmethod
    def open_pinned(cls, path: Path) -> Program:
        """Open the program pinned at `path`, named by the file; OSError ENOENT if there is none."""
        return cls(open_pin(path, "prog"), path.name)

    @classmethod
    def open_id(cls, number: int) -> Program:
        """Open a loaded program, named as the kernel knows it; OSError ENOENT if it is gone."""
        opened = cls(libbpf.open_id("prog", number), "")
        opened.name = opened.info.name
        return opened

    def constants(self) -> bytes:
        """Its .rodata, all of it; empty if it has none."""
        for name, number in self.maps().items():
            if name.endswith(".rodata"):
                with own_map(libbpf.open_id("map", number)) as one:
                    return one.lookup(bytes(4)) or b""
        return b""

    def maps(self) -> dict[str, int]:
        """The maps that it uses, .rodata among them: name, cut to 15 characters, and id."""
        found = {}
        for number in libbpf.maps_of_program(self.fd):
            with own_map(libbpf.open_id("map", number)) as one:
                found[one.info.name] = number
        return found

    @property
    def info(self) -> ProgramInfo:
        fields = _PROGRAM_INFO.unpack(libbpf.info(self.fd, _PROGRAM_INFO.size))
        return ProgramInfo(text(fields[-1]), fields[1], fields[2].hex(), fields[3] > 0)

    def test_run(self, packet: bytes, *, repeat: int = 1, **fields: int) -> TestRun:
        """Run on a copy of `packet` (from the Ethernet header, at least 14 bytes).

        `fields` are those of struct __sk_buff in SKB_OFFSETS, 0 meaning unset; `ifindex` names a
        device of the calling process's netns (0: its loopback). Redirects are reported, not done.
        Raises KeyError for another field.
        """
        context = bytearray(192)
        for name, value in fields.items():
            struct.pack_into("=I", context, SKB_OFFSETS[name], value)
        run = libbpf.test_run(self.fd, packet, bytes(context), repeat)
        return TestRun(
            action=run.action,
            packet=run.packet,
            mark=struct.unpack_from("=I", run.context, 8)[0],
            priority=struct.unpack_from("=I", run.context, 32)[0],
            cb=struct.unpack_from("=5I", run.context, 48),
            duration_ns=run.duration_ns,
        )


class Object(Closing):
    """A compiled BPF object file: opened, configured, then loaded into the kernel."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle: int | None = handle
        self.path = path
        self._maps = libbpf.parts(handle, "map")
        self._programs = libbpf.parts(handle, "program")

    @classmethod
    def open(cls, path: Path) -> Object:
        """Parse the object file; needs no privileges. LoaderError if it is none."""
        with libbpf.Messages() as messages:
            handle, code = libbpf.open_object(path)
        if handle is None:
            what = f"cannot open BPF object {path}: {os.strerror(code)}"
            raise LoaderError(what, details=messages.text, hint=REINSTALL)
        return cls(handle, path)

    def maps(self) -> Mapping[str, MapInfo]:
        """The declared maps, without the internal ones such as .rodata."""
        lib = library()
        return {
            name: MapInfo(
                name, lib.bpf_map__type(m), lib.bpf_map__key_size(m), lib.bpf_map__value_size(m),
                lib.bpf_map__max_entries(m), lib.bpf_map__map_flags(m),
                btf_key_type_id=lib.bpf_map__btf_key_type_id(m),
                btf_value_type_id=lib.bpf_map__btf_value_type_id(m),
            )
            for name, m in self._maps.items()
            if not lib.bpf_map__is_internal(m)
        }  # fmt: skip

    def programs(self) -> tuple[str, ...]:
        """Names of the programs, in file order."""
        return tuple(self._programs)

    def btf(self) -> bytes:
        """The object's type information, raw (see loader.btf)."""
        return libbpf.raw_btf(library().bpf_object__btf(self._open()), self.path)

    def reuse_map(self, name: str, fd: int) -> None:
        """Use the open map `fd` instead of creating `name`; the descriptor stays the caller's."""
        check(library().bpf_map__reuse_fd(self._maps[name], fd), name)

    def set_max_entries(self, name: str, max_entries: int) -> None:
        """Size of a map that load() will create."""
        check(library().bpf_map__set_max_entries(self._maps[name], max_entries), name)

    def set_rodata(self, data: bytes, *, variable: str = "config") -> None:
        """Give the constant `variable` its value before load().

        LayoutError if the object has no such constant or it is not as long as `data`.
        """
        found = libbpf.constant(self._open(), variable)
        if found is None:
            raise LayoutError(
                f"{self.path.name} has no constant {variable} in .rodata", hint=REINSTALL
            )
        offset, size = found
        if size != len(data):
            raise LayoutError(
                f"{self.path.name}: constant {variable} has {size} bytes, {len(data)} were given",
                hint="the Python side and the object are of different versions: compile again",
            )
        section = next(m for name, m in self._maps.items() if name.endswith(".rodata"))
        libbpf.write_initial_value(section, offset, data)

    def load(self) -> None:
        """Create maps and load programs.

        VerifierError if a program is refused, KernelError for everything else; nothing that was
        created survives close() unless pinned or attached.
        """
        with libbpf.Messages() as messages:
            result, logs = libbpf.load_object(self._open(), self._programs)
        if result == 0:
            return
        what = os.strerror(-result)
        for name, log in logs.items():
            tail = "\n".join(log.splitlines()[-LOG_TAIL_LINES:])
            raise VerifierError(
                f"the kernel refused program {name}: {what}", details=tail, hint=REPORT
            )
        hint = "run as root" if -result in (errno.EPERM, errno.EACCES) else ""
        raise KernelError(f"cannot load {self.path.name}: {what}", details=messages.text, hint=hint)

    def program(self, name: str) -> Program:
        """A loaded program with a descriptor of its own."""
        fd = check(library().bpf_program__fd(self._programs[name]), name)
        return Program(os.dup(fd), name)

    def map(self, name: str) -> Map:
        """A map after load(), with a descriptor of its own."""
        fd = check(library().bpf_map__fd(self._maps[name]), name)
        return own_map(os.dup(fd))

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            library().bpf_object__close(handle)

    def _open(self) -> int:
        if self._handle is None:
            raise ValueError(f"object {self.path} is closed")
        return self._handle


def load_instructions(name: str, code: bytes) -> Program:
    """Load raw instructions (struct bpf_insn) as a tc classifier; OSError if refused."""
    return Program(libbpf.load_instructions(name, code), name)
