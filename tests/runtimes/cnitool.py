# SPDX-License-Identifier: Apache-2.0
"""cnitool, the reference implementation's own runtime: `make test-cnitool`, where Go is.

Not collected with the other tests: CNITOOL must name the program, which Go has to build first.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pycni.lab import processes
from pycni.lab.cluster import Lab
from pycni.lab.layout import POD_IFNAME, LabNode, Pod
from pycni.lab.topology import NETNS_DIR
from support import leftovers, unchanged
from support.flood import unanswered
from support.flows import EVERY_ADDRESS, answering, ask
from support.labs import made_pod

PORT, HOST_PORT = 8080, 18082

Tool = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def node(cluster: Lab) -> LabNode:
    return cluster.layout.nodes[0]


@pytest.fixture
def pod(cluster: Lab, node: LabNode) -> Iterator[Pod]:
    with made_pod(cluster, node) as one:
        yield one


@pytest.fixture
def tool(cluster: Lab, node: LabNode, pod: Pod) -> Iterator[Tool]:
    """cnitool with a verb, for the pod; at the end nothing is attached or cached."""
    program = os.environ["CNITOOL"]

    def run(verb: str, **capabilities: Any) -> subprocess.CompletedProcess[bytes]:
        return processes.run(
            node.netns,
            [program, verb, cluster.layout.name, NETNS_DIR / pod.netns],
            env={
                "CNI_PATH": str(node.bin_dir),
                "NETCONFPATH": str(node.conf_dir),
                "CNI_IFNAME": POD_IFNAME,
                "CAP_ARGS": json.dumps(capabilities),
                "PATH": os.defpath,
            },
        )

    yield run
    run("del")
    leftovers.forget_results(cluster.layout.name)


def test_add_check_and_del(cluster: Lab, node: LabNode, tool: Tool) -> None:
    gone = unchanged.since_now(node)

    added = tool("add")
    checked = tool("check")
    addresses = [ip["address"].partition("/")[0] for ip in json.loads(added.stdout)["ips"]]
    unreached = unanswered(cluster, node.netns, addresses)
    deleted = tool("del")
    again = tool("del")

    done = (added, checked, deleted, again)
    assert [one.returncode for one in done] == [0] * 4, [one.stderr for one in done]
    assert unreached == []
    gone()


def test_a_second_add_is_refused_and_harms_nothing(cluster: Lab, node: LabNode, tool: Tool) -> None:
    added = tool("add")
    again = tool("add")
    addresses = [ip["address"].partition("/")[0] for ip in json.loads(added.stdout)["ips"]]

    assert again.returncode != 0
    assert unanswered(cluster, node.netns, addresses) == []


def test_status_says_ready(tool: Tool) -> None:
    done = tool("status")

    assert done.returncode == 0, done.stderr.decode()


def test_gc_takes_what_nobody_claims(node: LabNode, tool: Tool) -> None:
    """cnitool's gc names no valid attachment."""
    gone = unchanged.since_now(node)
    assert tool("add").returncode == 0

    done = tool("gc")

    assert done.returncode == 0, done.stderr.decode()
    gone()


def test_a_capability_reaches_the_plugin(cluster: Lab, node: LabNode, pod: Pod, tool: Tool) -> None:
    mapping = {"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}
    added = tool("add", portMappings=[mapping])
    assert added.returncode == 0, added.stdout

    with answering(str(NETNS_DIR / pod.netns), EVERY_ADDRESS[4], PORT, protocol="tcp"):
        greeted = ask(
            cluster.layout.underlay_netns, str(node.underlay[0].ip), HOST_PORT, protocol="tcp"
        )

    assert greeted is not None
    assert tool("del", portMappings=[mapping]).returncode == 0
