# SPDX-License-Identifier: Apache-2.0
"""Maps of other layouts on a running node, under traffic: from these to others, and back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import loader.compile
from loader.bpf import Map
from loader.compile import compile_programs
from loader.places import SOCKETS
from pycni.dataplane import maps
from pycni.lab import processes
from pycni.lab.cluster import Lab, pycni_command
from pycni.lab.layout import LabNode
from pycni.settings import load
from support import dump_tables, with_layouts
from support import setup_from as other_sources
from support.flood import Flood, unanswered
from support.labs import CACHE, made_lab, made_pod, setup
from support.plugin import execute
from support.snapshot import differences, take
from support.waiting import wait_until

FLOOD = 1000
HOST_PORT = 30080

GROWN = {
    "endpoint": "__u32 pad1; /* grown */",
    "remote": "__u32 pad1; __u32 pad2;",
    "vtep": "__u32 pad1;",
    "node": "__u32 pad1; __u32 pad2;",
    "nexthop": "__u64 pad1;",
    "path_mtu": "__u32 pad1;",
    "self": "__u64 pad1;",
    "service": "__u32 pad1;",
    "slot": "__u32 pad1;",
    "backend": "__u32 pad1;",
    "flow": "__u64 pad1;",
    "affinity": "__u64 pad1;",
}
"""What each struct gets at its end."""
SIZES = {
    "endpoints": 16, "remotes": 24, "vteps": 12, "nodes": 24, "nexthops": 32, "path_mtus": 8,
    "self": 32, "services": 32, "slots": 8, "backends": 32, "flows": 72, "affinity": 24,
}  # fmt: skip

LOADED = frozenset(maps.TABLES) - {SOCKETS}
"""On a node whose own processes have no Services."""

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=2) as made:
        one, other = made.layout.pods[0], made.layout.pods[-1]
        assert unanswered(made, one.netns, made.addresses(other)) == []
        wait_until(
            lambda: all(tables(node)["nexthops"] for node in made.layout.nodes),
            "the nodes know their next hops",
        )
        yield made


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources in which all entries are larger."""
    copy = tmp_path_factory.mktemp("grown") / "bpf"
    shutil.copytree(loader.compile.SOURCES, copy)
    header = copy / "lib/types.h"
    text = header.read_text()
    for name, members in GROWN.items():
        text, count = re.subn(rf"(struct {name} \{{\n[^}}]*)\}};", rf"\1\t{members}\n}};", text)
        assert count == 1
        text = re.sub(rf"_Static_assert\(sizeof\(struct {name}\).*\n", "", text)
    header.write_text(text)
    return copy


@pytest.fixture
def host_port(lab: Lab) -> Iterator[None]:
    """A pod on node one has a host port."""
    node = lab.layout.nodes[0]
    ports = {"portMappings": [{"hostPort": HOST_PORT, "containerPort": 80, "protocol": "tcp"}]}
    with made_pod(lab, node) as pod:
        assert execute(lab, pod, "ADD", runtimeConfig=ports).status == 0
        yield
        assert execute(lab, pod, "DEL", runtimeConfig=ports).status == 0


@pytest.mark.usefixtures("host_port")
def test_no_packet_is_lost_to_larger_entries_and_back(lab: Lab, sources: Path) -> None:
    """With agents of the old layouts still there, which wait for their own to come back."""
    nodes = lab.layout.nodes
    before = [contents(lab, node) for node in nodes]
    pods = lab.layout.pods
    directions = [(pods[0], pods[-1]), (pods[1], pods[0])]
    compile_programs(CACHE, sources=sources)
    ways: list[tuple[Path | None, dict[str, int]]] = [(sources, SIZES), (None, plain_sizes())]

    for way, sizes in ways:
        with ExitStack() as stack:
            floods = [
                stack.enter_context(Flood(source, lab.addresses(target), count=FLOOD))
                for source, target in directions
            ]
            done = [setup_of(node, way) for node in nodes]
            assert all(flood.flowing for flood in floods)
            lost = [flood.lost() for flood in floods]

        assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
        assert lost == [dict.fromkeys(lab.addresses(target), 0) for _, target in directions]
        assert [value_sizes(node) for node in nodes] == [sizes, sizes]
        assert [contents(lab, node, way) for node in nodes] == before

    for node in nodes:  # the agents go on
        wait_until(partial(vouched, lab, node), "the agent vouches for next hops again")
    with made_pod(lab, nodes[0]) as pod:
        added = execute(lab, pod, "ADD")
        assert added.status == 0
        assert unanswered(lab, pods[-1].netns, added.addresses) == []
        assert execute(lab, pod, "DEL").status == 0


def test_a_setup_of_other_layouts_than_its_programs_changes_nothing(
    lab: Lab, sources: Path
) -> None:
    """It cannot fill the new maps: it would write the entries of its own layouts."""
    node = lab.layout.nodes[0]
    setup(node)
    before, ids = take(node), map_ids(node)
    source, target = lab.layout.pods[0], lab.layout.pods[-1]

    with Flood(source, lab.addresses(target), count=FLOOD) as flood:
        failed = processes.run(
            node.netns, [sys.executable, other_sources.__file__, node.settings_path, sources]
        )
        assert flood.flowing
        lost = flood.lost()

    assert failed.returncode == 1
    assert "of another version of pycni" in failed.stderr.decode()
    assert lost == dict.fromkeys(lab.addresses(target), 0)
    assert differences(before, take(node)) == []
    assert map_ids(node) == ids


def setup_of(node: LabNode, sources: Path | None) -> subprocess.CompletedProcess[bytes]:
    """`pycni setup`, of other sources and their layouts if there are any."""
    if sources is None:
        return processes.run(node.netns, pycni_command(node, "setup"))
    command = [Path(other_sources.__file__), node.settings_path, sources]
    return processes.run(node.netns, [sys.executable, *with_layouts_of(sources), *command])


def with_layouts_of(sources: Path) -> Sequence[str | Path]:
    return (Path(with_layouts.__file__), sources / "lib/types.h")


def tables(node: LabNode, sources: Path | None = None) -> dict[str, Rows]:
    """The entries of all tables, by the layouts of other sources if there are any."""
    way = () if sources is None else with_layouts_of(sources)
    command = [sys.executable, *way, Path(dump_tables.__file__), node.settings_path]
    done = processes.run(node.netns, command)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Rows] = json.loads(done.stdout)
    return found


def contents(lab: Lab, node: LabNode, sources: Path | None = None) -> dict[str, Rows]:
    """What the node knows, without what changes by itself."""
    found = tables(node, sources) | {"ports": lab.pycni(node, "ports")}
    for row in (*found["nexthops"], *found["self"]):
        row.pop("used", None)
        row.pop("fresh_until_ns", None)
    return found


def vouched(lab: Lab, node: LabNode) -> bool:
    (own,) = lab.pycni(node, "maps", "dump", "self")
    return bool(own["fresh_until_ns"])


def pinned(node: LabNode) -> dict[str, Map]:
    root = load(node.settings_path).pin_root
    return {name: Map.open_pinned(root / "maps" / name) for name in LOADED}


def value_sizes(node: LabNode) -> dict[str, int]:
    with ExitStack() as stack:
        found = {name: stack.enter_context(one) for name, one in pinned(node).items()}
        return {name: one.info.value_size for name, one in found.items()}


def map_ids(node: LabNode) -> dict[str, int]:
    with ExitStack() as stack:
        found = {name: stack.enter_context(one) for name, one in pinned(node).items()}
        return {name: one.info.id for name, one in found.items()}


def plain_sizes() -> dict[str, int]:
    return {name: maps.TABLES[name].value.layout.size for name in LOADED}
