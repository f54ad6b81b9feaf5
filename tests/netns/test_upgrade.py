"""Other programs on a running node: all hooks get them, no packet notices; or nothing changes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import loader.compile
from loader import ENDPOINT_PROGRAMS, clsact, tcx
from loader.compile import compile_programs
from pycni.kernel.rtnl import Rtnl
from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from support import setup_from as other_sources
from support.flood import Flood, unanswered
from support.labs import CACHE, made_lab, made_pod, prepared_lab, setup, teardown, within
from support.plugin import execute
from support.snapshot import differences, take

FLOOD = 1000
SETUP_FROM = Path(other_sources.__file__)

HOOKS = {"from_container", "to_container", "from_underlay", "from_overlay", "to_overlay"}

HASH = "__uint(type, BPF_MAP_TYPE_HASH);"
TRIE = "__uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(map_flags, BPF_F_NO_PREALLOC);"

HARMLESS = "/* a change */\n"
UNCOMPILABLE = "this is no C;\n"
UNVERIFIABLE = """
SEC("tc")
int to_overlay(struct __sk_buff *ctx)
{
	return *(volatile int *)(long)ctx->data;
}

char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=2) as made:
        yield made


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the sources, to be changed."""
    copy = tmp_path / "bpf"
    shutil.copytree(loader.compile.SOURCES, copy)
    return copy


def test_no_packet_is_lost_during_an_upgrade_of_both_nodes(lab: Lab, sources: Path) -> None:
    source, target = lab.layout.pods[0], lab.layout.pods[-1]
    before = [fingerprints(node) for node in lab.layout.nodes]
    change(sources, "from_container.c", HARMLESS)
    compile_programs(CACHE, sources=sources)

    with Flood(source, lab.addresses(target), count=FLOOD) as flood:
        done = [setup_from(node, sources) for node in lab.layout.nodes]
        assert flood.flowing
        lost = flood.lost()

    assert [one.returncode for one in done] == [0, 0], done
    assert lost == dict.fromkeys(lab.addresses(target), 0)
    for node, old in zip(lab.layout.nodes, before, strict=True):
        new = fingerprints(node)
        assert len(old) == len(new) == 1
        assert old != new


def test_no_packet_is_lost_when_the_kernel_can_do_more(sources: Path) -> None:
    """From filters to tcx on a running node, but for pods, which stay as they were attached. An
    empty qdisc, which cannot be taken from a device that is up without a loss, goes with the
    teardown."""
    with prepared_lab(nodes=2, pods=1) as lab:
        node = lab.layout.nodes[0]
        source, target = lab.layout.pods
        bare = take(node)
        for one in lab.layout.nodes:
            assert setup_from(one, sources, "clsact").returncode == 0
        assert execute(lab, source, "ADD").status == 0
        addresses = execute(lab, target, "ADD").addresses
        for one in lab.layout.nodes:  # for the pods, and to know of each other
            assert setup_from(one, sources, "clsact").returncode == 0

        with Flood(source, addresses, count=FLOOD) as flood:
            done = setup_from(node, sources)
            assert flood.flowing
            lost = flood.lost()
        filters, programs = (
            within(node.netns, partial(look, one)) for one in (clsact.attached, tcx_attached)
        )
        teardown(node)

        assert done.returncode == 0, done.stderr.decode()
        assert lost == dict.fromkeys(addresses, 0)
        assert [set(one) for one in filters] == [set(ENDPOINT_PROGRAMS)] * len(node.pods)
        assert len(programs) == 2
        assert differences(bare, take(node), without=("neighbours", "files")) == []


def test_an_upgrade_reaches_every_hook_and_keeps_the_rest(lab: Lab, sources: Path) -> None:
    node = lab.layout.nodes[0]
    before = take(node)
    change(sources, "lib/encap.h", HARMLESS)

    assert setup_from(node, sources).returncode == 0

    after = take(node)
    kept = differences(before, after, without=("filters", "pins", "nft"))
    assert kept == []
    assert len(before["filters"]) == len(after["filters"]) == 2 * len(node.pods) + 3
    assert not set(before["filters"]) & set(after["filters"])
    assert len(before["pins"]) == len(after["pins"])


def test_pods_attached_after_an_upgrade_get_the_new_programs(lab: Lab, sources: Path) -> None:
    """Also by the agent, which began with the old ones."""
    node, other = lab.layout.nodes
    change(sources, "lib/drop.h", HARMLESS)
    assert setup_from(node, sources).returncode == 0

    with made_pod(lab, node) as pod:
        added = execute(lab, pod, "ADD")

        assert len(fingerprints(node)) == 1
        assert unanswered(lab, other.pods[0].netns, added.addresses) == []
        assert execute(lab, pod, "DEL").status == 0


def test_an_upgrade_to_another_kind_of_map_takes_the_entries_over(lab: Lab, sources: Path) -> None:
    """From the trie that `remotes` once was."""
    source, target = lab.layout.pods[0], lab.layout.pods[-1]
    node = lab.layout.nodes[0]
    remotes = sources / "lib/remotes.h"
    remotes.write_text(remotes.read_text().replace(HASH, TRIE))
    assert setup_from(node, sources).returncode == 0
    assert kind_of_remotes(lab, node) == "lpm_trie"
    before = take(node)

    with Flood(source, lab.addresses(target), count=FLOOD) as flood:
        setup(node)
        assert flood.flowing
        lost = flood.lost()

    assert kind_of_remotes(lab, node) == "hash"
    assert lost == dict.fromkeys(lab.addresses(target), 0)
    assert differences(before, take(node), without=("filters", "pins", "nft")) == []


@pytest.mark.parametrize(
    ("file", "text", "word"),
    [
        ("to_overlay.c", UNCOMPILABLE, "cannot compile"),
        ("to_overlay.c", UNVERIFIABLE, "to_overlay"),
    ],
    ids=["does not compile", "is refused by the verifier"],
)
def test_a_failed_upgrade_changes_nothing(
    lab: Lab, sources: Path, file: str, text: str, word: str
) -> None:
    source, target = lab.layout.pods[0], lab.layout.pods[-1]
    node = lab.layout.nodes[0]
    before = take(node)
    (sources / file).write_text(includes(sources / file) + text)

    with Flood(source, lab.addresses(target), count=FLOOD) as flood:
        failed = setup_from(node, sources)
        assert flood.flowing
        lost = flood.lost()

    assert failed.returncode == 1
    assert word in failed.stderr.decode()
    assert "Traceback" not in failed.stderr.decode()
    assert lost == dict.fromkeys(lab.addresses(target), 0)
    assert differences(before, take(node)) == []


def test_a_second_setup_changes_nothing(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    setup(node)  # the programs of the package, after those of other tests
    before = take(node)

    said = setup(node)

    assert "unchanged" in said
    assert differences(before, take(node)) == []


def change(sources: Path, name: str, line: str) -> None:
    file = sources / name
    file.write_text(file.read_text() + line)


def includes(file: Path) -> str:
    """The part of a source before its first step."""
    return "".join(
        f"{line}\n" for line in file.read_text().splitlines() if line.startswith("#include")
    )


def kind_of_remotes(lab: Lab, node: LabNode) -> str:
    listed = {row["name"]: row["type"] for row in lab.pycni(node, "maps", "list")}
    return str(listed["remotes"])


def setup_from(node: LabNode, sources: Path, *way: str) -> subprocess.CompletedProcess[bytes]:
    return processes.run(
        node.netns, [sys.executable, SETUP_FROM, node.settings_path, sources, *way]
    )


def fingerprints(node: LabNode) -> set[str]:
    """Of the programs at a node's hooks; every hook has its program."""
    found: set[str] = set()
    programs: set[str] = set()
    for attached in within(node.netns, lambda: [*look(clsact.attached), *look(tcx_attached)]):
        programs |= attached.keys()
        found |= set(attached.values())
    assert programs == HOOKS
    return found


def look(attached: Callable[[Rtnl, int], dict[str, str]]) -> list[dict[str, str]]:
    """Programs on each interface of this namespace that has any."""
    with Rtnl() as ipr:
        found = [attached(ipr, link.ifindex) for link in ipr.links()]
    return [one for one in found if one]


def tcx_attached(_: Rtnl, ifindex: int) -> dict[str, str]:
    return tcx.attached(ifindex)
