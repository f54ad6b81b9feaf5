# SPDX-License-Identifier: Apache-2.0
"""What pods leave on a node, as long as they are there: nothing of it may stay."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cluster import network
from cluster.layout import Cluster
from cluster.life import Running
from cluster.machine import Machine
from cluster.waiting import remaining
from pycni.lab import topology
from pycni.lab.layout import LabNode
from support import leftovers

LEFT_SECONDS = 30.0
"""Until a node has nothing of pods that are gone: kubelet looks after control groups at times."""

NETNS = "/run/netns"
RESULTS = "/var/lib/cni/results"
"""Of libcni, which containerd calls plugins with."""


def of_pods(running: Running, node: LabNode) -> set[str]:
    """A line for each trace. Raises PycniError if pycni does not answer."""
    said = network.run(running.kubectl, node, "endpoints", "--output", "json")
    with topology.open_rtnl(node.netns) as ipr:
        links = {link.ifname for link in ipr.links()}
    return {
        *(f"endpoint {row['address']}" for row in json.loads(said)),
        *(f"link {ifname}" for ifname in links),
        *of_others(running.cluster, node),
    }


def of_others(cluster: Cluster, node: LabNode) -> set[str]:
    """What the runtime, libcni and the kubelet have of pods, a line each."""
    machine = Machine(node)
    return {
        *(f"network namespace {name}" for name in _names(machine.path(NETNS))),
        *(f"result {name}" for name in _names(machine.path(RESULTS))),
        *(f"control group {path}" for path in _control_groups(cluster.cgroup(node))),
    }


def left(running: Running, node: LabNode, before: set[str]) -> str:
    """What is there that was not before, after the time that kubelet and the runtime take."""
    return remaining(lambda: ", ".join(sorted(of_pods(running, node) - before)), LEFT_SECONDS)


def surplus(running: Running, node: LabNode, before: set[str]) -> str:
    """As `left`, by their number: on a node that has booted, every pod has another sandbox."""
    wanted = count(before)

    def wrong() -> str:
        now = count(of_pods(running, node))
        return "" if now == wanted else f"{dict(now)}, not {dict(wanted)}"

    return remaining(wrong, LEFT_SECONDS)


def count(found: set[str]) -> Counter[str]:
    """By kind. Control groups are of kubelet, which has more of some pods than of others."""
    kinds = (line.rpartition(" ")[0] for line in found)
    return Counter(kind for kind in kinds if kind != "control group")


def _names(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()] if directory.exists() else []


def _control_groups(name: str) -> Iterator[Path]:
    """Those that kubelet and the runtime made below a node's, in each hierarchy; what goes at the
    look is none."""
    for top in leftovers.cgroups(name):
        for above, groups, _ in os.walk(top):  # unlike rglob, it passes over what has gone
            yield from (Path(above, group) for group in groups if group.startswith("pod"))
