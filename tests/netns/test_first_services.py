# SPDX-License-Identifier: Apache-2.0
"""A node whose Services were never written gets no pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pycni.lab import cluster
from pycni.lab.cluster import Lab
from pycni.lab.layout import LabNode
from pycni.node import first_services
from pycni.settings import load
from support.lab_services import File, port, service, slices
from support.labs import prepared_lab, setup, teardown, write_settings
from support.plugin import Reply, execute
from support.waiting import wait_until

pytestmark = pytest.mark.root

DOCUMENTS = [service(ports=[port("TCP")])]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A node whose agent knows no Services yet, and a pod that is not attached."""
    with prepared_lab(nodes=1, pods=1) as made:
        (node,) = made.layout.nodes
        write_settings(node, services="pods", services_file=str(file_of(made).path))
        made.start_agent(node)
        cluster.wait_for_agent(made, node)
        yield made


def file_of(lab: Lab) -> File:
    return File(lab, lab.layout.directory / "services.yaml")


def ask(lab: Lab, *, alone: bool = False) -> Reply:
    (pod,) = lab.layout.pods
    return execute(lab, pod, "STATUS", alone=alone, cniVersion="1.1.0")


def test_a_node_waits_for_its_first_services(lab: Lab) -> None:
    """S-151"""
    (node,), (pod,) = lab.layout.nodes, lab.layout.pods

    before = ask(lab)
    file_of(lab).put(*DOCUMENTS, *slices("web", [("10.244.9.9", pod.node)], ports=[port("TCP")]))
    wait_until(lambda: ask(lab).status == 0, "the Services are written")
    lab.stop_agent(node, kill=True)

    assert (before.status, before.document["code"]) == (1, 50)
    assert "no Service is forwarded yet" in before.document["msg"]
    assert ask(lab, alone=True).status == 0, "without an agent they stay written"


def test_a_node_with_pods_is_ready_without(lab: Lab) -> None:
    """Who switches Services on loses no pod for it."""
    (pod,) = lab.layout.pods
    assert ask(lab).status == 1

    lab.attach(pod)

    assert ask(lab).status == 0


def test_new_maps_are_written_anew_and_a_teardown_leaves_nothing(lab: Lab) -> None:
    (node,) = lab.layout.nodes
    file_of(lab).put(*DOCUMENTS)
    wait_until(lambda: ask(lab).status == 0, "the Services are written")

    switch(node, "off")
    wait_until(lambda: ask(lab).status == 0, "the agent has heard of it")
    lab.stop_agent(node, kill=True)
    switch(node, "pods")
    on = ask(lab, alone=True)
    lab.start_agent(node)
    wait_until(lambda: ask(lab).status == 0, "the Services are written again")
    lab.stop_agent(node)
    teardown(node)

    assert on.status == 1
    assert not (load(node.settings_path).run_dir / first_services.FILE).exists()


def switch(node: LabNode, to: str) -> None:
    write_settings(node, services=to)
    setup(node)
