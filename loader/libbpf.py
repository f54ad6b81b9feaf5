# SPDX-License-Identifier: Apache-2.0
"""The one door to libbpf and the few system calls around it: every use of ctypes is here.

bcc's C library `libbcc_bpf.so.0` brings libbpf with it (`libbpf.so.1`, both from the
distribution); ctypes finds libbpf's symbols through that dependency. Nothing is loaded at import:
the first call opens the library, KernelError if it is missing.

Functions take and give descriptors, bytes and opaque handles; failures are OSError with the
kernel's errno. Owns nothing: loader.bpf wraps descriptors and handles in objects that close them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .errors import KernelError

LIBRARY = "libbcc_bpf.so.0"
LOG_BYTES = 4 << 20  # touched only as far as the verifier writes
SCHED_CLS, CGROUP_SOCK_ADDR = 3, 18  # enum bpf_prog_type: include/uapi/linux/bpf.h
BPF_F_REPLACE, BPF_F_BEFORE = 1 << 2, 1 << 3
PROGRAMS_MAX = 64  # at one hook: BPF_MPROG_MAX, include/linux/bpf_mprog.h
MAPS_MAX = 64  # of one program: MAX_USED_MAPS, include/linux/bpf_verifier.h
_PROGRAM_MAPS, _PROGRAM_MAPS_END = 52, 64  # nr_map_ids and map_ids in struct bpf_prog_info
_DATASEC = 15  # BTF_KIND_DATASEC
_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_SAMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

# name: result, arguments. A result of c_int is negative errno on failure.
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open_file": (c_void_p, [c_char_p, c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "bpf_object__next_map": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_map__name": (c_char_p, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__type": (c_uint32, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map__max_entries": (c_uint32, [c_void_p]),
    "bpf_map__map_flags": (c_uint32, [c_void_p]),
    "bpf_map__btf_key_type_id": (c_uint32, [c_void_p]),
    "bpf_map__btf_value_type_id": (c_uint32, [c_void_p]),
    "bpf_map__is_internal": (ctypes.c_bool, [c_void_p]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__set_log_buf": (c_int, [c_void_p, c_char_p, c_size_t]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_char_p, c_char_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_char_p, c_char_p, c_uint64]),
    "bpf_map_delete_elem": (c_int, [c_int, c_char_p]),
    "bpf_map_get_next_key": (c_int, [c_int, c_char_p, c_char_p]),
    "bpf_map_lookup_batch": (
        c_int,
        [c_int, c_char_p, c_char_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_obj_pin": (c_int, [c_int, c_char_p]),
    "bpf_obj_get": (c_int, [c_char_p]),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, POINTER(c_uint32)]),
    "bpf_prog_load": (c_int, [c_int, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p]),
    "bpf_prog_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_map_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_prog_attach_opts": (c_int, [c_int, c_int, c_int, c_void_p]),
    "bpf_prog_detach2": (c_int, [c_int, c_int, c_int]),
    "bpf_prog_query": (c_int, [c_int, c_int, c_uint32, c_void_p, c_void_p, POINTER(c_uint32)]),
    "bpf_link_create": (c_int, [c_int, c_int, c_int, c_void_p]),
    "bpf_link_update": (c_int, [c_int, c_int, c_void_p]),
    "bpf_link_detach": (c_int, [c_int]),
    "bpf_prog_test_run_opts": (c_int, [c_int, c_void_p]),
    "btf__new_empty": (c_void_p, []),
    "btf__add_int": (c_int, [c_void_p, c_char_p, c_size_t, c_int]),
    "btf__parse": (c_void_p, [c_char_p, c_void_p]),
    "btf__load_from_kernel_by_id": (c_void_p, [c_uint32]),
    "btf__load_into_kernel": (c_int, [c_void_p]),
    "btf__free": (None, [c_void_p]),
    "btf__raw_data": (c_void_p, [c_void_p, POINTER(c_uint32)]),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__type_by_id": (c_void_p, [c_void_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
    "libbpf_num_possible_cpus": (c_int, []),
    "libbpf_probe_bpf_helper": (c_int, [c_int, c_int, c_void_p]),
    "libbpf_probe_bpf_map_type": (c_int, [c_int, c_void_p]),
    "libbpf_set_print": (c_void_p, [_PRINT]),
    "ring_buffer__new": (c_void_p, [c_int, _SAMPLE, c_void_p, c_void_p]),
    "ring_buffer__poll": (c_int, [c_void_p, c_int]),
    "ring_buffer__epoll_fd": (c_int, [c_void_p]),
    "ring_buffer__free": (None, [c_void_p]),
}


class RawRun(NamedTuple):
    """What bpf_prog_test_run_opts gives back; `context` is a struct __sk_buff."""

    action: int
    packet: bytes
    context: bytes
    duration_ns: int


@cache
def library() -> Any:
    """libbpf with declared signatures, for calls that need no buffer."""
    try:
        lib = ctypes.CDLL(LIBRARY, use_errno=True)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise KernelError(
            f"cannot use the BPF library {LIBRARY}: {error}", hint="apt install libbpfcc"
        ) from error
    lib.libbpf_set_print(_print_hook)
    return lib


def check(result: int, what: object) -> int:
    """Pass a result on; OSError naming `what` if it is a negative errno."""
    if result < 0:
        raise OSError(-result, os.strerror(-result), str(what))
    return result


def text(raw: bytes) -> str:
    """A C string."""
    return raw.split(b"\0", 1)[0].decode(errors="replace")


@cache
def possible_cpus() -> int:
    """Number of possible CPUs: the number of values of a per-CPU map."""
    return check(library().libbpf_num_possible_cpus(), "possible CPUs")


class Messages:
    """Collects what libbpf prints during the `with`, for this thread."""

    current = threading.local()

    def __init__(self) -> None:
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def __enter__(self) -> Messages:
        library()
        self.current.lines = self._lines
        return self

    def __exit__(self, *_: object) -> None:
        self.current.lines = None


def info(fd: int, size: int) -> bytes:
    """The first `size` bytes of what the kernel tells of a descriptor (BPF_OBJ_GET_INFO_BY_FD)."""
    buffer = ctypes.create_string_buffer(size)
    check(library().bpf_obj_get_info_by_fd(fd, buffer, byref(c_uint32(size))), f"descriptor {fd}")
    return buffer.raw


def open_id(what: str, number: int) -> int:
    """A descriptor of the loaded "prog" or "map" with that id; OSError ENOENT if it is gone."""
    return check(getattr(library(), f"bpf_{what}_get_fd_by_id")(number), f"{what} {number}")


def maps_of_program(fd: int) -> list[int]:
    """Ids of the maps that a program uses, .rodata among them."""
    ids = (c_uint32 * MAPS_MAX)()
    buffer = bytearray(_PROGRAM_MAPS_END)
    struct.pack_into("=IQ", buffer, _PROGRAM_MAPS, MAPS_MAX, ctypes.addressof(ids))
    raw = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    check(library().bpf_obj_get_info_by_fd(fd, raw, byref(c_uint32(len(buffer)))), "program")
    return ids[: struct.unpack_from("=I", buffer, _PROGRAM_MAPS)[0]]


def lookup(fd: int, key: bytes, size: int) -> bytes | None:
    """The `size` bytes of value under `key`; None if absent."""
    value = ctypes.create_string_buffer(size)
    result = library().bpf_map_lookup_elem(fd, key, value)
    if result == -errno.ENOENT:
        return None
    check(result, "lookup")
    return value.raw


def next_key(fd: int, previous: bytes | None, size: int) -> bytes | None:
    """The key after `previous`, the first for None; None after the last."""
    key = ctypes.create_string_buffer(size)
    result = library().bpf_map_get_next_key(fd, previous, key)
    if result == -errno.ENOENT:
        return None
    check(result, "next key")
    return key.raw


def lookup_batch(
    fd: int, token: bytes | None, *, sizes: tuple[int, int], room: int
) -> tuple[bytes | None, bytes, bytes]:
    """Up to `room` entries from `token` on, None for the first: the token for those after them,
    None after the last, and all keys and all values, of `sizes` bytes each.

    Raises OSError: EINVAL or ENOTSUPP where the kernel has no such call for this kind of map,
    ENOSPC if a bucket of a hash has more entries than `room`.
    """
    key_size, value_size = sizes
    following = ctypes.create_string_buffer(max(key_size, 4))
    keys = ctypes.create_string_buffer(room * key_size)
    values = ctypes.create_string_buffer(room * value_size)
    count = c_uint32(room)
    lib = library()
    result = lib.bpf_map_lookup_batch(fd, token, following, keys, values, byref(count), None)
    is_last = result == -errno.ENOENT
    if not is_last:
        check(result, "batch")
    return (
        None if is_last else following.raw,
        ctypes.string_at(keys, count.value * key_size),
        ctypes.string_at(values, count.value * value_size),
    )


def open_object(path: Path) -> tuple[int | None, int]:
    """(handle, 0), or (None, errno)."""
    handle = library().bpf_object__open_file(os.fsencode(path), None)
    return handle, 0 if handle else ctypes.get_errno()


def parts(handle: int, what: str) -> dict[str, int]:
    """Handles of an object's "map"s or "program"s by name, in file order."""
    lib = library()
    following = getattr(lib, f"bpf_object__next_{what}")
    name = getattr(lib, f"bpf_{what}__name")
    found = {}
    item = following(handle, None)
    while item:
        found[text(name(item))] = item
        item = following(handle, item)
    return found


def constant(handle: int, variable: str) -> tuple[int, int] | None:
    """(offset, size) of a variable in .rodata, from struct btf_type and btf_var_secinfo."""
    lib = library()
    types = lib.bpf_object__btf(handle)
    section = lib.btf__find_by_name_kind(types, b".rodata", _DATASEC)
    for kind, offset, size in _members(lib.btf__type_by_id(types, section)) if section > 0 else ():
        name = c_uint32.from_address(lib.btf__type_by_id(types, kind)).value
        if text(lib.btf__name_by_offset(types, name)) == variable:
            return offset, size
    return None


def write_initial_value(map_handle: int, offset: int, data: bytes) -> None:
    """Overwrite a part of an internal map's content before the load; the caller knows its size."""
    start = library().bpf_map__initial_value(map_handle, byref(c_size_t()))
    ctypes.memmove(start + offset, data, len(data))


def load_object(handle: int, programs: dict[str, int]) -> tuple[int, dict[str, str]]:
    """(0 or negative errno, verifier log of each program that has one)."""
    lib = library()
    logs = {name: ctypes.create_string_buffer(LOG_BYTES) for name in programs}
    for name, log in logs.items():
        lib.bpf_program__set_log_buf(programs[name], log, LOG_BYTES)
    try:
        result = lib.bpf_object__load(handle)
    finally:
        for program in programs.values():
            lib.bpf_program__set_log_buf(program, None, 0)
    return result, {name: text(log.value) for name, log in logs.items() if log.value}


def test_run(fd: int, packet: bytes, context: bytes, repeat: int) -> RawRun:
    """Run a program on a packet (BPF_PROG_TEST_RUN)."""
    context_out = ctypes.create_string_buffer(len(context))
    packet_out = ctypes.create_string_buffer(len(packet) + 512)
    run = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=packet,
        data_out=ctypes.addressof(packet_out),
        data_size_in=len(packet),
        data_size_out=len(packet_out),
        ctx_in=context,
        ctx_out=ctypes.addressof(context_out),
        ctx_size_in=len(context),
        ctx_size_out=len(context),
        repeat=repeat,
    )
    check(library().bpf_prog_test_run_opts(fd, byref(run)), "test run")
    action = ctypes.c_int32(run.retval).value
    return RawRun(action, packet_out.raw[: run.data_size_out], context_out.raw, run.duration)


def open_ring(fd: int, take: Callable[[bytes], int]) -> tuple[int, object]:
    """(handle, an object to be kept as long as the handle); `take` gets each record.

    Raises OSError.
    """

    def on_record(_context: int | None, data: int, size: int) -> int:
        return take(ctypes.string_at(data, size))

    callback = _SAMPLE(on_record)
    handle = library().ring_buffer__new(fd, callback, None, None)
    if not handle:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "ring buffer")
    return handle, callback


def object_btf(path: Path) -> bytes:
    """Raw type information of an object file; needs no privileges."""
    return _take_btf(library().btf__parse(os.fsencode(path), None), path)


def kernel_btf(btf_id: int) -> bytes:
    """Raw type information that the kernel holds under `btf_id` (see MapInfo.btf_id)."""
    return _take_btf(library().btf__load_from_kernel_by_id(btf_id), f"BTF {btf_id}")


def raw_btf(handle: int | None, what: object) -> bytes:
    """The bytes of open type information; OSError ENODATA if there are none."""
    size = c_uint32()
    data = library().btf__raw_data(handle, byref(size)) if handle else None
    if not data:
        raise OSError(errno.ENODATA, "no BTF", str(what))
    return ctypes.string_at(data, size.value)


def load_btf() -> None:
    """Load type information with one integer and let it go; OSError if the kernel takes none."""
    lib = library()
    handle = lib.btf__new_empty()
    try:
        check(lib.btf__add_int(handle, b"int", 4, 1), "BTF")
        check(lib.btf__load_into_kernel(handle), "BTF")
    finally:
        lib.btf__free(handle)


def load_instructions(name: str, code: bytes) -> int:
    """Load raw instructions (struct bpf_insn) as a tc classifier; gives a descriptor."""
    count = len(code) // 8
    return check(library().bpf_prog_load(SCHED_CLS, name.encode(), b"GPL", code, count, None), name)


def probe_helper(helper: int, kind: int = SCHED_CLS) -> bool:
    """Whether tc programs, or those of another enum bpf_prog_type, may call helper number `helper`;
    tried by libbpf with a small program."""
    return bool(check(library().libbpf_probe_bpf_helper(kind, helper, None), "helper"))


def probe_map_type(map_type: int) -> bool:
    """Whether a map of enum bpf_map_type `map_type` can be made; tried by libbpf."""
    return bool(check(library().libbpf_probe_bpf_map_type(map_type, None), "map type"))


def query(ifindex: int, attach_type: int) -> list[int]:
    """Ids of the programs at an interface of the current netns, in the order they run.

    `attach_type` is an enum bpf_attach_type; OSError EINVAL if the kernel does not know it, ENODEV
    if there is no such interface.
    """
    ids = (c_uint32 * PROGRAMS_MAX)()
    count = c_uint32(PROGRAMS_MAX)
    lib = library()
    check(lib.bpf_prog_query(ifindex, attach_type, 0, None, ids, byref(count)), "query")
    return ids[: count.value]


def attach(fd: int, ifindex: int, attach_type: int, *, replace: int | None = None) -> None:
    """Attach a program at an interface of the current netns, without a link: until it is detached
    or the interface ends. It runs before those that are there, or in the place of `replace`, a
    descriptor of one of them."""
    options = _AttachOpts(
        sz=ctypes.sizeof(_AttachOpts),
        flags=BPF_F_BEFORE if replace is None else BPF_F_REPLACE,
        replace_prog_fd=replace or 0,
    )
    check(library().bpf_prog_attach_opts(fd, ifindex, attach_type, byref(options)), "attach")


def detach(fd: int, ifindex: int, attach_type: int) -> None:
    """Undo of `attach`; OSError ENOENT if the program is not there."""
    check(library().bpf_prog_detach2(fd, ifindex, attach_type), "detach")


def create_link(fd: int, cgroup: int, attach_type: int) -> int:
    """Attach a program at a hook of a control group, an open directory, beside those of others; a
    descriptor of the link. It is attached until that is closed, and as long as it is pinned."""
    return check(library().bpf_link_create(fd, cgroup, attach_type, None), "link")


def update_link(link: int, fd: int) -> None:
    """Put another program in the place of a link's."""
    check(library().bpf_link_update(link, fd, None), "link")


def detach_link(link: int) -> None:
    """Detach a link's program while the link stays open."""
    check(library().bpf_link_detach(link), "link")


def link_info(link: int) -> tuple[int, int]:
    """The id of a link's program, and the inode of its control group; 0: it is at none any more."""
    found = struct.unpack("=I4xQ", info(link, 24)[8:])  # struct bpf_link_info
    return found[0], found[1]


def mount_bpffs(path: Path) -> None:
    """Mount a new BPF file system at `path` in the caller's mount namespace (mount(2)).

    Raises OSError.
    """
    flags = 0x2 | 0x4 | 0x8  # MS_NOSUID | MS_NODEV | MS_NOEXEC
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpffs", os.fsencode(path), b"bpf", ctypes.c_ulong(flags), b"mode=0700") != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


def unmount(path: Path) -> None:
    """Unmount `path`; OSError EBUSY while it is in use (umount(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


class _TestRunOpts(ctypes.Structure):
    """struct bpf_test_run_opts, tools/lib/bpf/bpf.h."""

    _fields_ = [
        ("sz", c_size_t),
        ("data_in", c_char_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_char_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


class _AttachOpts(ctypes.Structure):
    """struct bpf_prog_attach_opts as of libbpf 1.0, tools/lib/bpf/bpf.h."""

    _fields_ = [("sz", c_size_t), ("flags", c_uint32), ("replace_prog_fd", c_int)]


@cache
def _vsnprintf() -> Callable[..., int]:
    function = ctypes.CDLL(None).vsnprintf
    function.restype, function.argtypes = c_int, [c_char_p, c_size_t, c_char_p, c_void_p]
    return function


def _collect(level: int, form: bytes, arguments: int) -> int:
    """libbpf's messages go to the `with` that collects them; levels: 0 warning, 1 info, 2 debug.

    A va_list is passed by reference on the 64-bit ABIs, so a pointer hands it on.
    """
    lines = getattr(Messages.current, "lines", None)
    if lines is not None and level < 2:
        line = ctypes.create_string_buffer(4096)
        _vsnprintf()(line, len(line), form, arguments)
        lines.append(text(line.value).rstrip())
    return 0


_print_hook = _PRINT(_collect)


def _members(record: int) -> Iterator[tuple[int, int, int]]:
    """The three-word members behind a struct btf_type."""
    _, word, _ = struct.unpack("=3I", ctypes.string_at(record, 12))
    return struct.iter_unpack("=3I", ctypes.string_at(record + 12, 12 * (word & 0xFFFF)))


def _take_btf(handle: int | None, what: object) -> bytes:
    if not handle:
        code = ctypes.get_errno()
        raise OSError(code, f"no BTF: {os.strerror(code)}", str(what))
    try:
        return raw_btf(handle, what)
    finally:
        library().btf__free(handle)
