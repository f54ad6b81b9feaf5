# SPDX-License-Identifier: Apache-2.0
"""A host's reboot, imitated: links, pins, filters, rules, processes and /run are gone.

The state directory is kept, and with it the node's place in the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pycni.lab import cluster, topology
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from support.flood import unanswered
from support.labs import made_lab, pycni, reboot, rows, setup
from support.plugin import execute
from support.snapshot import differences, take
from support.waiting import wait_until

NOT_AVAILABLE = 50

BROKEN = 2
"""Exit status of `pycni status`."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with made_lab(nodes=2, pods=1) as made:
        yield made


def pod_cidrs(lab: Lab) -> dict[str, list[str]]:
    return {row["name"]: row["pod_cidrs"] for row in lab.pycni(lab.layout.nodes[0], "nodes")}


def start(lab: Lab, node: LabNode) -> None:
    lab.start_agent(node)
    cluster.wait_for_agent(lab, node)


def test_a_rebooted_node_is_the_same_node_with_no_stale_entries(lab: Lab) -> None:
    node, other = lab.layout.nodes
    pod, far = node.pods[0], other.pods[0]
    before = pod_cidrs(lab)
    old = set(lab.addresses(pod))
    tables = [rows(lab, one, "remotes") for one in lab.layout.nodes]

    reboot(lab, node)
    start(lab, node)
    topology.make_netns(pod.netns)
    lab.attach(pod)

    assert pod_cidrs(lab) == before
    assert {row["address"] for row in rows(lab, node, "endpoints")} == set(lab.addresses(pod))
    assert not old & set(lab.addresses(pod)), "the rotation survives a reboot"
    wait_until(lambda: [rows(lab, n, "remotes") for n in lab.layout.nodes] == tables, "as before")
    assert unanswered(lab, pod.netns, lab.addresses(far)) == []
    assert unanswered(lab, far.netns, lab.addresses(pod)) == []


def test_del_of_pods_from_before_the_reboot_succeeds(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    reboot(lab, node)

    before_setup = execute(lab, node.pods[0], "DEL")
    start(lab, node)
    after_setup = execute(lab, node.pods[0], "DEL")

    assert (before_setup.status, after_setup.status) == (0, 0)


def test_add_before_setup_says_what_to_do(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    reboot(lab, node)
    topology.make_netns(node.pods[0].netns)
    before = take(node)

    added = execute(lab, node.pods[0], "ADD")

    assert added.document["code"] == NOT_AVAILABLE
    assert "pycni setup" in added.text
    assert differences(before, take(node)) == []


def test_status_tells_what_a_reboot_took(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    assert pycni(node, "status").returncode != BROKEN
    reboot(lab, node)

    after = pycni(node, "status")

    assert after.returncode == BROKEN
    assert b"not loaded" in after.stdout


def test_teardown_after_a_reboot_leaves_a_host_without_pycni(lab: Lab) -> None:
    node = lab.layout.nodes[0]
    reboot(lab, node)
    untouched = take(node)
    setup(node)

    done = pycni(node, "teardown", "--yes")

    assert done.returncode == 0, done.stderr.decode()
    left = [line for line in differences(untouched, take(node)) if "files: state" not in line]
    assert [line for line in left if not line.startswith("- files: run")] == []


def test_other_nodes_flow_on_while_one_reboots(lab: Lab) -> None:
    node, other = lab.layout.nodes
    before = take(other)

    reboot(lab, node)

    assert differences(before, take(other), without=("neighbours",)) == []
    assert unanswered(lab, other.netns, lab.addresses(other.pods[0])) == []
