# SPDX-License-Identifier: Apache-2.0
"""BPF maps and ring buffers, each owning its descriptor.

Keys and values are bytes in the layout of the C structs, never interpreted here. Failed calls
raise OSError with the kernel's errno: only the caller knows what a full map means.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import libbpf
from .closing import Closing
from .libbpf import check, library, possible_cpus, text

RING_BATCH = 4096  # records one poll() returns at most
BATCH = 2048  # entries one system call returns at most
# 524: ENOTSUPP, include/linux/errno.h. EINTR: entries went away meanwhile
NO_BATCHES = (errno.EINVAL, 524, errno.ENOSPC, errno.EINTR)

# enum bpf_map_type: include/uapi/linux/bpf.h
MAP_TYPES = {1: "hash", 2: "array", 5: "percpu_hash", 6: "percpu_array", 9: "lru_hash",
             10: "lru_percpu_hash", 11: "lpm_trie", 27: "ringbuf"}  # fmt: skip
BPF_NOEXIST = 1  # include/uapi/linux/bpf.h
PERCPU_TYPES = frozenset({5, 6, 10, 21})
_MAP_INFO = struct.Struct("=6I16s2I2Q4IQ")  # struct bpf_map_info


@dataclass(frozen=True)
class MapInfo:
    """What the kernel or an object says of a map; sizes in bytes, `id` 0 if it is not loaded."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    id: int = 0
    btf_id: int = 0
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0

    @property
    def type_name(self) -> str:
        return MAP_TYPES.get(self.type, f"type {self.type}")


class Descriptor(Closing):
    """Owns one descriptor; closing twice is harmless."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The open descriptor. Raises ValueError after close."""
        if self._fd < 0:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._fd

    def pin(self, path: Path) -> None:
        """Pin at `path` on a bpffs; its name may not hold a dot (kernel/bpf/inode.c)."""
        check(library().bpf_obj_pin(self.fd, os.fsencode(path)), path)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Map(Descriptor):
    """A map in the kernel."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.info = _map_info(fd)
        self._percpu = self.info.type in PERCPU_TYPES
        size = self.info.value_size
        self._value_bytes = (size + 7 & ~7) * possible_cpus() if self._percpu else size

    @classmethod
    def open_pinned(cls, path: Path) -> Map:
        """Open the map pinned at `path`; OSError ENOENT if there is none, ValueError if no map."""
        return own_map(open_pin(path, "map"))

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, None if absent. TypeError for a map with a value per CPU."""
        if self._percpu:
            raise TypeError(f"map {self.info.name} has a value per CPU: use lookup_percpu")
        return self._lookup(key)

    def lookup_percpu(self, key: bytes) -> list[bytes] | None:
        """The values of `key`, one per possible CPU in CPU order; None if absent."""
        if not self._percpu:
            raise TypeError(f"map {self.info.name} has one value per key: use lookup")
        value = self._lookup(key)
        return None if value is None else self._split(value)

    def update(self, key: bytes, value: bytes) -> None:
        """Insert or replace. A full map is OSError E2BIG (hash) or ENOSPC (LPM trie).

        A per-CPU map takes one value of `value_size` and stores it for every CPU.
        """
        self._sized("value", value, self.info.value_size)
        if self._percpu:
            cpus = possible_cpus()
            value = value.ljust(self._value_bytes // cpus, b"\0") * cpus
        self._write(key, value)

    def insert(self, key: bytes, value: bytes) -> bool:
        """Insert atomically; False if `key` is there already. Errors are those of `update`."""
        self._sized("key", key, self.info.key_size)
        self._sized("value", value, self.info.value_size)
        result = library().bpf_map_update_elem(self.fd, key, value, BPF_NOEXIST)
        return result != -errno.EEXIST and check(result, self.info.name) == 0

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False if it was absent. OSError EINVAL for arrays."""
        self._sized("key", key, self.info.key_size)
        result = library().bpf_map_delete_elem(self.fd, key)
        return result != -errno.ENOENT and check(result, self.info.name) == 0

    def is_empty(self) -> bool:
        """Whether there is no key; of an array there always is one."""
        return libbpf.next_key(self.fd, None, self.info.key_size) is None

    def keys(self) -> list[bytes]:
        """All keys, each once, also while others insert and delete.

        The kernel restarts from the first key when the previous one has been deleted meanwhile
        (htab_map_get_next_key), so the walk remembers what it saw and is bounded.
        """
        found: dict[bytes, None] = {}
        previous: bytes | None = None
        for _ in range(2 * self.info.max_entries + 2):
            previous = libbpf.next_key(self.fd, previous, self.info.key_size)
            if previous is None:
                break
            found[previous] = None
        return list(found)

    def entries(self) -> dict[bytes, bytes]:
        """All values by their keys; entries deleted meanwhile are left out.

        TypeError for a map with a value per CPU.
        """
        found: dict[bytes, bytes] = {}
        for keys, values in self._batches():
            found.update(zip(_cut(keys, self.info.key_size), _cut(values, self.info.value_size),
                             strict=True))  # fmt: skip
        return found

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """As `entries`, in pairs."""
        yield from self.entries().items()

    def stream(self) -> Iterator[tuple[bytes, bytes]]:
        """As `items`, of which only a few hundred are held at a time. One may come twice while
        others change the map."""
        for keys, values in self._batches():
            yield from zip(_cut(keys, self.info.key_size), _cut(values, self.info.value_size),
                           strict=True)  # fmt: skip

    def marked(self, place: range) -> Iterator[tuple[bytes, bytes]]:
        """The entries in whose values not all of these bytes are 0; others cost next to nothing.

        One may come twice while others change the map.
        """
        key_size, size = self.info.key_size, self.info.value_size
        for keys, values in self._batches():
            columns = [values[at::size] for at in place]
            for number in {
                at for one in columns if any(one) for at, byte in enumerate(one) if byte
            }:
                key = keys[number * key_size : (number + 1) * key_size]
                yield key, values[number * size : (number + 1) * size]

    def digest(self, *, but: range = range(0)) -> bytes:
        """A hash of all entries in the kernel's order; `but` are bytes of each value that do not
        count. An equal one means that the map is as it was. Another one may mean only that an entry
        was written again: a hash table then has it before others of its bucket."""
        summed = hashlib.blake2b(digest_size=16)
        size = self.info.value_size
        for keys, values in self._batches():
            counted = bytearray(values)
            for at in but:
                counted[at::size] = bytes(len(values) // size)
            summed.update(keys)
            summed.update(counted)
        return summed.digest()

    def items_percpu(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """All (key, values) pairs of a per-CPU map."""
        for key in self.keys():
            values = self.lookup_percpu(key)
            if values is not None:
                yield key, values

    def _batches(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, as keys and values one after the other. While others change the map, one may
        come twice, and how many come is bounded.

        Where the kernel has no batches of this kind of map, they are read one by one: Linux 5.10
        has none of LPM tries.
        """
        if self._percpu:
            raise TypeError(f"map {self.info.name} has a value per CPU: use items_percpu")
        sizes, most = (self.info.key_size, self.info.value_size), self.info.max_entries
        token: bytes | None = None
        for _ in range(2 * (most // BATCH + 1)):
            try:
                token, keys, values = libbpf.lookup_batch(
                    self.fd, token, sizes=sizes, room=min(BATCH, most)
                )
            except OSError as error:
                if error.errno not in NO_BATCHES:
                    raise
                yield from self._one_by_one()
                return
            yield keys, values
            if token is None:
                return

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        for key in self.keys():
            value = self._lookup(key)
            if value is not None:
                yield key, value

    def _lookup(self, key: bytes) -> bytes | None:
        self._sized("key", key, self.info.key_size)
        return libbpf.lookup(self.fd, key, self._value_bytes)

    def _write(self, key: bytes, value: bytes) -> None:
        self._sized("key", key, self.info.key_size)
        check(library().bpf_map_update_elem(self.fd, key, value, 0), self.info.name)

    def _split(self, value: bytes) -> list[bytes]:
        slot = self._value_bytes // possible_cpus()
        size = self.info.value_size
        return [value[start : start + size] for start in range(0, len(value), slot)]

    def _sized(self, what: str, data: bytes, size: int) -> None:
        if len(data) != size:
            raise ValueError(f"{what} of map {self.info.name}: {len(data)} bytes, it takes {size}")


class RingBuffer(Closing):
    """Reader of a BPF_MAP_TYPE_RINGBUF map; one reader per map at a time."""

    def __init__(self, ring: Map) -> None:
        self._records: list[bytes] = []
        handle, self._callback = libbpf.open_ring(ring.fd, self._take)
        self._handle: int | None = handle

    def fileno(self) -> int:
        """A descriptor that is readable when records wait (for selectors)."""
        return int(library().ring_buffer__epoll_fd(self._handle))

    def poll(self, timeout_ms: int) -> list[bytes]:
        """Wait up to `timeout_ms` (-1: for ever) and return at most RING_BATCH records."""
        self._records = []
        result = library().ring_buffer__poll(self._handle, timeout_ms)
        if result not in (-errno.EINTR, -errno.ECANCELED):
            check(result, "ring buffer")
        return self._records

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle:
            library().ring_buffer__free(handle)

    def _take(self, record: bytes) -> int:
        self._records.append(record)
        return 0 if len(self._records) < RING_BATCH else -errno.ECANCELED


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    """The pieces of `size` bytes."""
    return (data[start : start + size] for start in range(0, len(data), size))


def _map_info(fd: int) -> MapInfo:
    fields = _MAP_INFO.unpack(libbpf.info(fd, _MAP_INFO.size))
    kind, number, key_size, value_size, max_entries, flags, name = fields[:7]
    return MapInfo(
        text(name), kind, key_size, value_size, max_entries, flags, number, *fields[11:14]
    )


def open_pin(path: Path, kind: str) -> int:
    """Descriptor of a pinned "map" or "prog"; ValueError if something else is pinned there.

    The kernel would answer questions about a map with those of a program (fs name in proc(5)).
    """
    fd = check(library().bpf_obj_get(os.fsencode(path)), path)
    if Path(f"/proc/self/fd/{fd}").readlink().name != f"anon_inode:bpf-{kind}":
        os.close(fd)
        raise ValueError(f"{path} is not a {kind}")
    return fd


def own_map(fd: int) -> Map:
    """A Map that owns `fd`; the descriptor is closed if it is not a map's."""
    try:
        return Map(fd)
    except BaseException:
        os.close(fd)
        raise
