# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.lookups`: what it costs to find the node of a pod's address, by kind of map.

Programs of lookups.c, run by BPF_PROG_TEST_RUN in interleaved rounds; what the same loop takes
without a lookup is subtracted within each round. Run as root in tests/; nothing is pinned.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from bench import report
from bench.figures import Samples, lookup_rows
from bench.rounds import turned
from bench.table import markdown
from loader import btf
from loader.bpf import Object
from loader.clang import compile_file, find_clang
from loader.compile import SOURCES

SOURCE = Path(__file__).with_suffix(".c")
LOOKUPS = 64
"""Of one run; as in lookups.c."""
REPEAT = 2000
PACKET = bytes(64)
SCENE = struct.Struct("=IIII")
MAPPED = bytes(10) + b"\xff\xff"

CLUSTER4, CLUSTER6 = int(IPv4Address("10.128.0.0")), int(IPv6Address("fd00:10::"))
WAYS = {
    "lpm": "LPM trie, 16-byte addresses",
    "lpm4": "LPM trie, 4-byte addresses",
    "hash": "hash on the node prefix",
    "hash4": "hash on the node prefix, 4-byte keys",
    "remotes": "**`remotes`: hash on the node prefix, then on the address**",
    "array": "array, by the number of the node's prefix",
    "cached": "LPM trie behind a one-entry per-CPU cache",
}
ONLY_IPV4 = ("lpm4", "hash4")
ONLY_INSIDE = ("array", "cached")
"""Make no sense for addresses that are in no map."""
NOTHING = "nothing"


@dataclass(frozen=True)
class Scene:
    """`entries` in the map, `destinations` of them asked for; an entry per node, or per pod.

    `outside`: the addresses asked for are in no entry.
    """

    title: str
    entries: int
    destinations: int
    per_pod: bool = False
    ip6: bool = False
    outside: bool = False

    @property
    def ways(self) -> list[str]:
        without = (*ONLY_IPV4 * self.ip6, *ONLY_INSIDE * self.outside)
        return [way for way in WAYS if way not in without]

    @property
    def host_bits(self) -> int:
        """Of an IPv4 entry."""
        return 0 if self.per_pod else 8


NODES = (10, 1000, 5000)
SCENES = (
    *(Scene(f"{nodes:,} nodes, one asked for", nodes, 1) for nodes in NODES),
    *(Scene(f"{nodes:,} nodes", nodes, nodes) for nodes in NODES),
    Scene("5,000 nodes, IPv6", 5000, 5000, ip6=True),
    Scene("5,000 nodes, the world", 5000, 5000, outside=True),
    Scene("100,000 pods, one asked for", 100_000, 1, per_pod=True),
    Scene("100,000 pods", 100_000, 100_000, per_pod=True),
)


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("the bench loads BPF programs: run it as root")
    samples = measure(SCENES, options.rounds)
    rows = [list(row) for row in zip(*lookup_rows(WAYS, samples), strict=True)]
    text = "\n".join([*markdown(rows), "", f"{options.rounds} rounds, on {report.machine()}."])
    sys.stdout.write(text + "\n")
    if options.docs is not None:
        page = options.docs / "lookups.md"
        page.write_text(report.put_between_marks(page.read_text(), text))


def measure(scenes: tuple[Scene, ...], rounds: int) -> Samples:
    """Nanoseconds per lookup: a figure per scene, a path per way."""
    samples = Samples()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as close:
        compiled = Path(directory) / "lookups.o"
        compile_file(SOURCE, compiled, clang=find_clang(), include=SOURCES / "lib")
        loaded = {scene: close.enter_context(_Loaded(compiled, scene)) for scene in scenes}
        for number in range(rounds):
            for scene in turned(list(scenes), number):
                took = loaded[scene].run(number)
                nothing = took.pop(NOTHING)
                for way, nanoseconds in took.items():
                    samples.add(way, {scene.title: nanoseconds - nothing})
    return samples


class _Loaded:
    """The programs and filled maps of one scene."""

    def __init__(self, compiled: Path, scene: Scene) -> None:
        self._scene = scene
        self._close = ExitStack()
        opened = self._close.enter_context(Object.open(compiled))
        asked = (scene.destinations, scene.host_bits, scene.ip6, scene.outside)
        opened.set_rodata(SCENE.pack(*asked), variable="scene")
        opened.set_rodata(_config(compiled))
        if scene.per_pod:
            for name in opened.maps():
                if name.endswith(("_map", "remotes")) and name != "cache_map":
                    opened.set_max_entries(name, 1 << 17)
        opened.load()
        _fill(opened, scene)
        self._programs = {name: opened.program(f"do_{name}") for name in (NOTHING, *scene.ways)}
        for program in self._programs.values():
            self._close.enter_context(program)

    def run(self, number: int) -> dict[str, float]:
        took = {}
        for name in turned([*self._programs], number):
            done = self._programs[name].test_run(PACKET, repeat=REPEAT)
            expected = 0 if self._scene.outside and name != NOTHING else LOOKUPS
            assert done.action == expected, f"{name} found {done.action} of {LOOKUPS}"
            took[name] = done.duration_ns / LOOKUPS
        return took

    def __enter__(self) -> _Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()


def _config(compiled: Path) -> bytes:
    """struct config of the cluster: a /24 and a /64 for each node."""
    values = {
        "cluster4": MAPPED + CLUSTER4.to_bytes(4, "big") + _mask(96 + 9),
        "cluster6": CLUSTER6.to_bytes(16, "big") + _mask(32),
        "node_prefix4": struct.pack("=I", 96 + 24) + _mask(96 + 24),
        "node_prefix6": struct.pack("=I", 64) + _mask(64),
    }
    types = btf.of_object(compiled)
    number = types.find(btf.STRUCT, "config")
    raw = bytearray(types.size(number))
    for member, _ in types.members(number):
        if member.name in values:
            raw[member.offset : member.offset + member.size] = values[member.name]
    return bytes(raw)


def _mask(length: int) -> bytes:
    return (((1 << length) - 1) << (128 - length)).to_bytes(16, "big")


def _fill(opened: Object, scene: Scene) -> None:
    with ExitStack() as close:
        maps = {name: close.enter_context(opened.map(name)) for name in opened.maps()}
        for number, (address, length) in enumerate(_entries(scene)):
            vtep = MAPPED + (number + 1).to_bytes(4, "big")
            key = struct.pack("=I", length) + address
            maps["lpm_map"].update(key, vtep)
            maps["remotes"].update(key, vtep)
            maps["hash_map"].update(address, vtep)
            maps["array_map"].update(struct.pack("=I", number), vtep)
            if not scene.ip6:
                maps["lpm4_map"].update(struct.pack("=I", length - 96) + address[12:], vtep)
                maps["hash4_map"].update(address[12:], vtep)


def _entries(scene: Scene) -> Iterator[tuple[bytes, int]]:
    """(16-byte prefix, its length) of each entry."""
    for number in range(scene.entries):
        if scene.ip6:
            yield (CLUSTER6 + (number << 64)).to_bytes(16, "big"), 64
        else:
            prefix = CLUSTER4 + (number << scene.host_bits)
            yield MAPPED + prefix.to_bytes(4, "big"), 128 - scene.host_bits


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.lookups", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--docs", type=Path, help="write the table into lookups.md there, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
