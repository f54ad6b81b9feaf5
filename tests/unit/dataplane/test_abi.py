# SPDX-License-Identifier: Apache-2.0
"""abi.py is what the generator makes of types.h, and the generator refuses what it cannot say."""

from __future__ import annotations

from pathlib import Path

import pytest

from loader import PROGRAMS
from loader import abi as generator
from loader.errors import CompileError, LayoutError
from pycni.dataplane import abi

HEADER = """
#define WIDTH 0x40 /* bytes */

#include <linux/types.h>

union ip_addr {
	__u8 bytes[16];
};

struct host {
	__u32 number;
	__u8 mac[6];
	__u16 flags;
};

enum host_flag {
	HOST_LARGE = 1, /* 4 wheels */
	HOST_LOUD = 2,
};

enum colour {
	COLOUR_RED,
	COLOUR_BLUE = 7,
	COLOURS,
};

struct place {
	struct host inner;
	__be16 port;
	__u8 head[10];
	union ip_addr where;
	__u8 pad[4];
};
"""


@pytest.fixture
def header(tmp_path: Path) -> Path:
    path = tmp_path / "types.h"
    path.write_text(HEADER)
    return path


def test_the_module_is_up_to_date() -> None:
    assert Path(abi.__file__).read_text() == generator.generate(), (
        "run: python -m loader.abi > pycni/dataplane/abi.py"
    )


def test_the_loader_places_every_program_that_counts() -> None:
    points = [point.name.lower() for point in abi.AttachPoint]

    assert points == [*PROGRAMS, "attach_points"]


def test_types_are_told_as_the_compiler_has_them(header: Path) -> None:
    text = generator.generate(header)
    made: dict[str, object] = {}
    exec(compile(text, "generated", "exec"), made)

    assert made["WIDTH"] == 64
    assert dict(made["HostFlag"].__members__) == {"LARGE": 1, "LOUD": 2}
    assert dict(made["Colour"].__members__) == {"RED": 0, "BLUE": 7, "COLOURS": 8}
    host, place = made["HOST"], made["PLACE"]
    assert host == (
        "host",
        "=I6sH",
        (("number", "int"), ("mac", "mac"), ("flags", made["HostFlag"])),
    )
    assert place.format == "=12s2s10s16s4x"
    assert dict(place.fields) == {
        "inner": "struct host",
        "port": "port",
        "head": "bytes",
        "where": "address",
    }
    assert place.size == 44


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ("__u16 short_one; __u32 number;", "struct odd has a hole before number"),
        ("__u32 number; __u16 short_one;", "struct odd has a hole at its end"),
        ("void *next;", "struct odd: member next is"),
        ("__s32 sign;", "struct odd: member sign is s32"),
    ],
)
def test_what_no_layout_can_say_is_refused(header: Path, members: str, found: str) -> None:
    header.write_text(HEADER + f"struct odd {{\n\t{members}\n}};\n")

    with pytest.raises(LayoutError, match=found):
        generator.generate(header)


def test_a_header_that_does_not_compile_is_told_by_the_compiler(header: Path) -> None:
    header.write_text(HEADER + "struct broken {\n\tint\n};\n")

    with pytest.raises(CompileError):
        generator.generate(header)
