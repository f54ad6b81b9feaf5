# SPDX-License-Identifier: Apache-2.0
"""Maps, programs and ring buffers of a loaded object."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader import clang, libbpf
from loader import maps as loader_maps
from loader.bpf import Map, Object, Program, RingBuffer, possible_cpus
from loader.errors import KernelError, LayoutError, LoaderError, VerifierError
from support.kernel import bpffs, needs_root
from support.sources import config, key, write_sources

pytestmark = needs_root

FRAME = bytes(64)
ENTRY = struct.pack("=II", 5, 6)
TABLES = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct prefix { __u32 length; __u8 bytes[4]; };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
} prefixes SEC(".maps");

SEC("tc")
int count(struct __sk_buff *ctx)
{
	struct prefix any = {};
	__u32 first = 0;
	__u32 *mine = bpf_map_lookup_elem(&counts, &first);

	if (mine)
		*mine += 1;
	return bpf_map_lookup_elem(&prefixes, &any) ? (int)ctx->len : -1;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def simple(tmp_path: Path) -> Iterator[Object]:
    sources = write_sources(tmp_path / "src")
    clang.compile_file(
        sources / "from_container.c", tmp_path / "simple.o", clang=clang.find_clang()
    )
    with Object.open(tmp_path / "simple.o") as opened:
        yield opened


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Object]:
    (tmp_path / "tables.c").write_text(TABLES)
    clang.compile_file(tmp_path / "tables.c", tmp_path / "tables.o", clang=clang.find_clang())
    with Object.open(tmp_path / "tables.o") as opened:
        opened.load()
        yield opened


def test_program_runs_with_its_configuration(simple: Object) -> None:
    simple.set_rodata(config(mark=42))
    simple.load()

    with simple.program("from_container") as program:
        result = program.test_run(FRAME, mark=1, priority=9, repeat=3)

    assert (result.action, result.packet, result.mark, result.priority) == (0, FRAME, 42, 9)


def test_configuration_of_another_length_is_refused(simple: Object) -> None:
    with pytest.raises(LayoutError, match="config has 4 bytes, 5 were given"):
        simple.set_rodata(bytes(5))


def test_missing_constant_is_named(simple: Object) -> None:
    with pytest.raises(LayoutError, match="no constant settings"):
        simple.set_rodata(bytes(4), variable="settings")


def test_size_of_a_map_is_chosen_before_the_load(simple: Object) -> None:
    simple.set_max_entries("endpoints", 3)
    simple.load()

    with simple.map("endpoints") as endpoints:
        assert endpoints.info.max_entries == 3


def test_map_is_shared_with_another_object(simple: Object) -> None:
    simple.load()
    with simple.map("endpoints") as endpoints, Object.open(simple.path) as other:
        other.reuse_map("endpoints", endpoints.fd)
        other.load()

        with other.map("endpoints") as shared:
            assert shared.info.id == endpoints.info.id


def test_hash_map_inserts_replaces_finds_and_deletes(simple: Object) -> None:
    simple.load()
    with simple.map("endpoints") as endpoints:
        endpoints.update(key(1), bytes(8))
        endpoints.update(key(1), ENTRY)

        assert endpoints.lookup(key(1)) == ENTRY
        assert endpoints.lookup(key(2)) is None
        assert endpoints.delete(key(1))
        assert not endpoints.delete(key(1))


def test_full_map_tells_its_errno(simple: Object) -> None:
    simple.load()
    with simple.map("endpoints") as endpoints:
        for number in range(8):
            endpoints.update(key(number), ENTRY)

        with pytest.raises(OSError, match="endpoints") as error:
            endpoints.update(key(8), ENTRY)

    assert error.value.errno == errno.E2BIG


def test_full_lpm_trie_tells_its_errno(tables: Object) -> None:
    with tables.map("prefixes") as prefixes:
        for number in range(4):
            prefixes.update(struct.pack("=I4B", 32, 10, 0, 0, number), key(number))

        with pytest.raises(OSError, match="prefixes") as error:
            prefixes.update(struct.pack("=I4B", 32, 10, 0, 0, 4), key(4))

        assert error.value.errno == errno.ENOSPC
        assert len(list(prefixes.items())) == 4


def test_keys_and_values_of_another_size_never_reach_the_kernel(simple: Object) -> None:
    simple.load()
    with simple.map("endpoints") as endpoints:
        with pytest.raises(ValueError, match="3 bytes, it takes 4"):
            endpoints.lookup(b"abc")
        with pytest.raises(ValueError, match="value of map endpoints: 1 bytes"):
            endpoints.update(key(1), b"x")


def test_walk_survives_the_deletion_of_the_entry_it_stands_on(
    simple: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    simple.load()
    with simple.map("endpoints") as endpoints:
        for number in range(8):
            endpoints.update(key(number), ENTRY)
        ask = libbpf.next_key
        victims = iter(range(8))

        def delete_then_ask(fd: int, previous: bytes | None, size: int) -> bytes | None:
            if previous is not None and next(victims, 9) == 3:
                endpoints.delete(previous)
            return ask(fd, previous, size)

        monkeypatch.setattr(libbpf, "next_key", delete_then_ask)

        seen = endpoints.keys()

    assert len(seen) == 8  # it was there when it was seen


def test_all_entries_are_read_in_batches_of_any_size(
    simple: Object, tables: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    simple.load()
    monkeypatch.setattr(loader_maps, "BATCH", 3)
    wanted = {key(number): struct.pack("=II", number, 0) for number in range(8)}
    leaves = {struct.pack("=I4B", 32, 10, 0, 0, number): key(number) for number in range(4)}
    with simple.map("endpoints") as endpoints, tables.map("prefixes") as prefixes:
        assert list(endpoints.items()) == []
        for name, value in wanted.items():
            endpoints.update(name, value)
        for name, value in leaves.items():
            prefixes.update(name, value)

        assert dict(endpoints.items()) == wanted
        assert dict(endpoints.stream()) == wanted
        assert dict(prefixes.items()) == leaves


@pytest.mark.parametrize("code", [errno.EINVAL, 524, errno.ENOSPC, errno.EINTR])
def test_without_batches_entries_are_read_one_by_one(
    simple: Object, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    simple.load()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, "no batches")

    monkeypatch.setattr(libbpf, "lookup_batch", refuse)
    with simple.map("endpoints") as endpoints:
        for number in range(4):
            endpoints.update(key(number), ENTRY)

        assert dict(endpoints.items()) == {key(number): ENTRY for number in range(4)}
        before = endpoints.digest()
        assert endpoints.digest() == before
        endpoints.delete(key(3))
        assert endpoints.digest() != before


def test_what_else_a_batch_is_refused_for_is_told(
    simple: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    simple.load()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "not you")

    monkeypatch.setattr(libbpf, "lookup_batch", refuse)
    with simple.map("endpoints") as endpoints, pytest.raises(PermissionError):
        list(endpoints.items())


def _check_digests(table: Map, first: bytes, value: bytes) -> None:
    """They change with each entry, and when nothing changes they stay."""
    seen = [table.digest()]
    for change in (
        lambda: table.update(first, value),
        lambda: table.update(first, bytes(len(value))),
        lambda: table.update(bytes(len(first)), value),
        lambda: table.delete(first),
    ):
        change()
        assert table.digest() not in seen
        seen.append(table.digest())
        table.lookup(first)
        list(table.items())
        assert table.digest() == seen[-1]


def test_a_digest_changes_with_every_entry_and_with_nothing_else(
    simple: Object, tables: Object
) -> None:
    simple.load()
    with simple.map("endpoints") as endpoints, tables.map("prefixes") as prefixes:
        _check_digests(endpoints, key(1), ENTRY)
        _check_digests(prefixes, struct.pack("=I4B", 32, 10, 0, 0, 1), key(1))


def test_a_digest_leaves_out_the_bytes_that_do_not_count(simple: Object) -> None:
    simple.load()
    second = range(4, 8)
    with simple.map("endpoints") as endpoints:
        endpoints.update(key(1), ENTRY)
        before = endpoints.digest(but=second)

        endpoints.update(key(1), ENTRY[:4] + b"used")
        assert endpoints.digest(but=second) == before
        assert endpoints.digest() != before

        endpoints.update(key(1), b"else" + ENTRY[4:])
        assert endpoints.digest(but=second) != before


def test_percpu_map_has_a_value_for_each_possible_cpu(tables: Object) -> None:
    with tables.map("counts") as counts, tables.program("count") as program:
        assert program.test_run(FRAME).action == -1

        values = counts.lookup_percpu(key(0))

        assert values is not None
        assert len(values) == possible_cpus()
        assert sum(int.from_bytes(value, "little") for value in values) == 1
        assert [entry for entry, _ in counts.items_percpu()] == [key(0), key(1)]


def test_percpu_map_takes_one_value_for_all(tables: Object) -> None:
    with tables.map("counts") as counts:
        counts.update(key(0), key(7))

        assert counts.lookup_percpu(key(0)) == [key(7)] * possible_cpus()


def test_percpu_and_plain_lookups_are_not_mixed_up(tables: Object) -> None:
    with tables.map("counts") as counts, tables.map("prefixes") as prefixes:
        with pytest.raises(TypeError, match="use lookup_percpu"):
            counts.lookup(key(0))
        with pytest.raises(TypeError, match="use lookup"):
            prefixes.lookup_percpu(bytes(8))
        with pytest.raises(TypeError, match="use items_percpu"):
            counts.digest()


def test_array_entries_cannot_be_deleted(tables: Object) -> None:
    with tables.map("counts") as counts, pytest.raises(OSError, match="counts"):
        counts.delete(key(0))


def test_ring_buffer_gives_records_in_order(simple: Object) -> None:
    simple.load()
    with (
        simple.map("endpoints") as endpoints,
        simple.map("events") as events,
        simple.program("from_container") as program,
        RingBuffer(events) as ring,
    ):
        assert ring.poll(0) == []
        for number in range(3):
            endpoints.update(key(1), struct.pack("=II", number, 0))
            program.test_run(FRAME)

        records = ring.poll(1000)

        assert [struct.unpack("=II", record)[0] for record in records] == [0, 1, 2]
        assert os.get_blocking(ring.fileno()) in (True, False)


def test_ring_buffer_of_another_map_is_refused(simple: Object) -> None:
    simple.load()
    with simple.map("endpoints") as endpoints, pytest.raises(OSError, match="ring buffer"):
        RingBuffer(endpoints)


def test_pinned_program_is_the_same_program(simple: Object, tmp_path: Path) -> None:
    simple.load()
    with bpffs(tmp_path) as root, simple.program("from_container") as program:
        program.pin(root / "kept")

        with Program.open_pinned(root / "kept") as again:
            assert again.info == program.info
            assert again.name == "kept"


def test_absent_pin_is_a_missing_file(tmp_path: Path) -> None:
    with bpffs(tmp_path) as root, pytest.raises(FileNotFoundError):
        Map.open_pinned(root / "none")


def test_descriptors_are_not_inherited_and_are_closed(simple: Object) -> None:
    before = set(os.listdir("/proc/self/fd"))  # those of earlier tests may be collected meanwhile
    simple.load()
    with simple.map("endpoints") as endpoints, simple.program("from_container") as program:
        assert not os.get_inheritable(endpoints.fd)
        assert not os.get_inheritable(program.fd)

    simple.close()

    assert set(os.listdir("/proc/self/fd")) <= before
    with pytest.raises(ValueError, match="Map is closed"):
        _ = endpoints.fd


def test_verifier_error_holds_the_end_of_the_log(tmp_path: Path) -> None:
    sources = write_sources(
        tmp_path / "src", broken={"to_overlay": "return *(volatile int *)(long)ctx->data;"}
    )
    clang.compile_file(sources / "to_overlay.c", tmp_path / "bad.o", clang=clang.find_clang())

    with Object.open(tmp_path / "bad.o") as opened, pytest.raises(VerifierError) as error:
        opened.load()

    assert error.value.message.startswith("the kernel refused program to_overlay")
    assert "processed" in error.value.details.splitlines()[-1]


def test_map_that_the_kernel_cannot_make_is_a_kernel_error(simple: Object) -> None:
    simple.set_max_entries("endpoints", 0)

    with pytest.raises(KernelError, match=r"cannot load simple\.o") as error:
        simple.load()

    assert "endpoints" in error.value.details


def test_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.o").write_bytes(b"noise")

    with pytest.raises(LoaderError, match="cannot open BPF object"):
        Object.open(tmp_path / "noise.o")


def test_closed_object_is_not_used(simple: Object) -> None:
    simple.close()

    with pytest.raises(ValueError, match="is closed"):
        simple.load()
