# SPDX-License-Identifier: Apache-2.0
"""Reading type information of objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from loader import btf, clang
from loader.bpf import MapInfo, Object
from loader.btf import Member
from loader.errors import LayoutError

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum color { RED, GREEN = 5, BLUE };
enum signed_one { BELOW = -2, ABOVE = 3 };

union address { __u8 bytes[16]; __u32 words[4]; };

struct inner { __u16 port; __u8 pad[2]; };

struct outer {
	__u32 first;
	struct inner place;
	const union address where;
	enum color color;
	enum signed_one sign;
	__s64 balance;
	void *next;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct outer);
} table SEC(".maps");

SEC("tc")
int lookup(struct __sk_buff *ctx)
{
	__u32 key = ctx->len;

	return bpf_map_lookup_elem(&table, &key) ? 1 : 0;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("btf")
    (directory / "types.c").write_text(SOURCE)
    clang.compile_file(directory / "types.c", directory / "types.o", clang=clang.find_clang())
    return directory / "types.o"


def test_enum_values_are_read(compiled: Path) -> None:
    assert btf.of_object(compiled).enum("color") == {"RED": 0, "GREEN": 5, "BLUE": 6}
    assert btf.of_object(compiled).enum("signed_one") == {"BELOW": -2, "ABOVE": 3}


def test_struct_members_have_offsets_and_sizes(compiled: Path) -> None:
    types = btf.of_object(compiled)

    assert [member for member, _ in types.members(types.find(btf.STRUCT, "outer"))] == [
        Member("first", 0, 4),
        Member("place", 4, 4),
        Member("where", 8, 16),
        Member("color", 24, 4),
        Member("sign", 28, 4),
        Member("balance", 32, 8),
        Member("next", 40, 8),
    ]


def test_union_is_read_like_a_struct(compiled: Path) -> None:
    types = btf.of_object(compiled)
    found = [member for member, _ in types.members(types.find(btf.UNION, "address"))]

    assert found == [Member("bytes", 0, 16), Member("words", 0, 16)]


def test_size_of_a_struct_is_read(compiled: Path) -> None:
    types = btf.of_object(compiled)

    assert types.size(types.find(btf.STRUCT, "outer")) == 48


def test_unknown_type_is_named(compiled: Path) -> None:
    with pytest.raises(LayoutError, match="no type nothing"):
        btf.of_object(compiled).find(btf.STRUCT, "nothing")


def test_map_layout_tells_every_member(compiled: Path) -> None:
    with Object.open(compiled) as opened:
        text = btf.map_layout(opened.maps()["table"], btf.parse(opened.btf()))

    assert text.startswith("hash, flags 0x0, key 4 bytes u32, value 48 bytes struct outer {")
    assert "place struct inner {port u16 @0, pad u8[2] @2} @4" in text
    assert "color color:4 @24" in text
    assert "balance s64 @32" in text


def test_map_layout_without_types_tells_sizes() -> None:
    info = MapInfo("table", 99, 4, 8, 16, 1)

    assert btf.map_layout(info, None) == "type 99, flags 0x1, key 4 bytes, value 8 bytes"


def test_object_tells_its_programs_and_maps(compiled: Path) -> None:
    with Object.open(compiled) as opened:
        assert opened.programs() == ("lookup",)
        assert set(opened.maps()) == {"table"}
        assert opened.maps()["table"].max_entries == 4


def test_noise_is_not_type_information(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="not BTF"):
        btf.parse(b"noise")
    (tmp_path / "noise.o").write_bytes(b"noise")
    with pytest.raises(OSError, match="no BTF"):
        btf.of_object(tmp_path / "noise.o").enum("color")
