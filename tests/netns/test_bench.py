# SPDX-License-Identifier: Apache-2.0
"""The dataplane's bench in one tiny round: every figure is there, and nothing stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import dataplane, lookups
from bench.figures import Samples
from bench.measures import FIGURES
from bench.paths import CROWDED, DIRECT, METADATA, OWN, OWN_IPIP, OWN_LOCAL
from pycni.lab.topology import NETNS_DIR
from support.kernel import needs_root
from support.waiting import wait_until

pytestmark = needs_root

TESTS = Path(__file__).parents[1]
ENTRIES = 100


@pytest.fixture(scope="module")
def samples() -> Samples:
    return dataplane.run(dataplane.PLANS["smoke"])[0]


def test_every_figure_of_every_path_is_measured(samples: Samples) -> None:
    everywhere = samples.of("udp")

    assert {figure.key for figure in FIGURES} == set(samples)
    assert len(everywhere) == 12
    assert set(samples.of("rr")) == set(everywhere) - {CROWDED}
    own = {METADATA, OWN, CROWDED, DIRECT, OWN_IPIP}
    assert set(samples.of("run_from_container")) == {*own, OWN_LOCAL}
    assert set(samples.of("run_from_overlay")) == {METADATA}
    assert all(len(values) == 1 and values[0] > 0 for values in everywhere.values())


def test_own_encapsulation_is_what_is_measured_as_such(samples: Samples) -> None:
    """Else its packets would pass from_overlay, as those of the metadata device do."""
    assert OWN not in samples.of("run_from_overlay")
    own = {METADATA, OWN, CROWDED, DIRECT, OWN_IPIP}
    assert set(samples.of("run_from_underlay")) == own


def test_a_bench_that_is_stopped_leaves_nothing() -> None:
    bench = subprocess.Popen(
        [sys.executable, "-m", "bench.dataplane", "--smoke"],
        cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_until(
            lambda: bool(list(NETNS_DIR.glob(f"bench{bench.pid}-*node1-pod1"))), "pods", seconds=60
        )
    finally:
        bench.send_signal(signal.SIGINT)
        _, said = bench.communicate(timeout=60)

    assert bench.returncode == 128 + signal.SIGINT, said.decode()
    assert left_of(bench.pid) == []


def test_every_way_of_looking_up_finds_every_node() -> None:
    scenes = (
        lookups.Scene("nodes", ENTRIES, ENTRIES),
        lookups.Scene("IPv6", ENTRIES, ENTRIES, ip6=True),
        lookups.Scene("pods", ENTRIES, ENTRIES, per_pod=True),
        lookups.Scene("the world", ENTRIES, ENTRIES, outside=True),
    )

    found = lookups.measure(scenes, rounds=1)

    assert {one.title: set(found.of(one.title)) for one in scenes} == {
        one.title: set(one.ways) for one in scenes
    }


def left_of(pid: int) -> list[str]:
    """What is there of a bench: namespaces, mounts, directories, processes."""
    mark = f"bench{pid}"
    found = [str(path) for place in (NETNS_DIR, Path("/run")) for path in place.glob(f"{mark}*")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if mark in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "cmdline").read_bytes():
                found.append(f"process {process.name}")
        except OSError:
            continue
    return found
