# SPDX-License-Identifier: Apache-2.0
"""Writes the Python side of bpf/lib/types.h: `python -m loader.abi > pycni/dataplane/abi.py`.

Names come from the header, numbers and layouts from the compiler, by the BTF of an object that has
one variable of every type. A developer's tool: nothing imports it at run time.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from struct import calcsize

from . import btf, clang
from .compile import SOURCES
from .errors import LayoutError

HEADER = SOURCES / "lib/types.h"

STRUCT = re.compile(r"^struct (\w+) \{$", re.MULTILINE)
ENUM = re.compile(r"^enum (\w+) \{$", re.MULTILINE)
NUMBER = re.compile(r"^#define ([A-Z]\w*)[ \t]+\w", re.MULTILINE)
PAD = re.compile(r"pad\d*")

INTEGERS = {1: "B", 2: "H", 4: "I", 8: "Q"}

PADDING = "add a member `pad` there, in bpf/lib/types.h"
"""Formats of module struct, of unsigned integers in host order."""

OPENING = '''\
# SPDX-License-Identifier: Apache-2.0
"""What crosses between the programs and Python, as bpf/lib/types.h has it.

Written by `python -m loader.abi`: do not edit. tests/unit/dataplane/test_abi.py compares.
"""

from enum import IntEnum, IntFlag

from pycni.dataplane.records import Layout
'''


def generate(header: Path = HEADER) -> str:
    """The source of the module. CompileError if the header does not compile."""
    text = header.read_text()
    structs, enums = STRUCT.findall(text), ENUM.findall(text)
    numbers = NUMBER.findall(text)
    types = _types(header, structs, enums, numbers)
    values = types.enum("numbers")
    constants = "".join(f"{name} = {values[f'V_{name}']}\n" for name in numbers)
    classes = "".join(f"\n\n{_enum(types, name)}" for name in enums)
    layouts = [_layout(types, name, set(structs), set(enums)) for name in structs]
    return f"{OPENING}\n{constants}{classes}\n\n" + "\n".join(layouts)


def _types(header: Path, structs: list[str], enums: list[str], numbers: list[str]) -> btf.Types:
    inner = ", ".join(f"V_{name} = {name}" for name in numbers)
    variables = [
        *(f"struct {name} struct_{name};" for name in structs),
        *(f"enum {name} enum_{name};" for name in enums),
        f"enum numbers {{ {inner} }} enum_numbers;",
    ]
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "abi.c")
        source.write_text("\n".join([f'#include "{header.absolute()}"', *variables, ""]))
        clang.compile_file(source, source.with_suffix(".o"), clang=clang.find_clang())
        return btf.of_object(source.with_suffix(".o"))


def _enum(types: btf.Types, name: str) -> str:
    found = types.enum(name)
    first, *_ = found
    head = first.partition("_")[0] + "_"
    if not all(one.startswith(head) for one in list(found)[:-1]):
        head = ""
    kind = "IntFlag" if name.endswith("_flag") else "IntEnum"
    lines = (f"    {one.removeprefix(head)} = {value}" for one, value in found.items())
    return f"class {_camel(name)}({kind}):\n" + "\n".join(lines) + "\n"


def _layout(types: btf.Types, name: str, structs: set[str], enums: set[str]) -> str:
    """An assignment of a Layout: a format of module struct, and the members that are no padding."""
    number = types.find(btf.STRUCT, name)
    code, fields = "=", []
    for member, kind in types.members(number):
        if member.offset != calcsize(code):
            raise LayoutError(f"struct {name} has a hole before {member.name}", hint=PADDING)
        if PAD.fullmatch(member.name):
            code += f"{member.size}x"
            continue
        word, letter = _kind(types, name, member, kind, structs)
        code += letter
        has_names = member.name == "flags" and f"{name}_flag" in enums
        meaning = _camel(f"{name}_flag") if has_names else f'"{word}"'
        fields.append(f'("{member.name}", {meaning}),')
    if calcsize(code) != types.size(number):
        raise LayoutError(f"struct {name} has a hole at its end", hint=PADDING)
    body = fields[0] if len(fields) == 1 else "\n        " + "\n        ".join(fields) + "\n    "
    return f'{name.upper()} = Layout(\n    "{name}",\n    "{code}",\n    ({body}),\n)\n'


def _kind(
    types: btf.Types, struct: str, member: btf.Member, number: int, structs: set[str]
) -> tuple[str, str]:
    """What a member means, and its format. LayoutError for what no record has."""
    if "be16" in _typedefs(types, number):
        return "port", "2s"
    item = types.types[types.resolve(number)]
    if item.kind == btf.INT and not types.is_signed(number):
        return "int", INTEGERS[item.target]
    if item.kind == btf.UNION and item.name == "ip_addr":
        return "address", f"{member.size}s"
    if item.kind == btf.STRUCT and item.name in structs:
        return f"struct {item.name}", f"{member.size}s"
    if item.kind == btf.ARRAY:
        is_mac = member.size == 6 and "mac" in member.name
        return ("mac" if is_mac else "bytes"), f"{member.size}s"
    raise LayoutError(
        f"struct {struct}: member {member.name} is {types.describe(number)}",
        hint="give it a type that other members of bpf/lib/types.h have",
    )


def _typedefs(types: btf.Types, number: int) -> Iterator[str]:
    """Names of a type on the way to what it stands for, without underscores."""
    while types.types[number].kind in (btf.TYPEDEF, btf.VOLATILE, btf.CONST):
        yield types.types[number].name.strip("_")
        number = types.types[number].target


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


if __name__ == "__main__":
    sys.stdout.write(generate())
