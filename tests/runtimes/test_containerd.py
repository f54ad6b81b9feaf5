# SPDX-License-Identifier: Apache-2.0
"""Pods by containerd: what a kubelet asks for, and packets between what it gets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from pycni.lab.cluster import Lab
from runtimes import images, messages
from runtimes.containerd import Containerd, sandbox
from runtimes.cri import Refused
from support.flood import unanswered

MANY = 50
AT_ONCE = 16


def test_a_sandbox_has_an_address_of_each_family(
    first_node: Containerd, all_gone: Callable[[], None]
) -> None:
    with sandbox(first_node) as pod:
        assert first_node.cri.state(pod) == messages.READY
        addresses = first_node.cri.addresses(pod)

    assert [ip_address(one).version for one in addresses] == [4, 6]
    all_gone()


def test_a_sandbox_is_stopped_twice_and_removed(
    first_node: Containerd, all_gone: Callable[[], None]
) -> None:
    first_node.recorder.forget()
    pod = first_node.cri.run(first_node.cri.pod())

    first_node.cri.stop(pod)
    assert first_node.cri.state(pod) == messages.NOT_READY
    all_gone()
    first_node.cri.stop(pod)
    first_node.cri.remove(pod)

    with pytest.raises(Refused, match="not found"):
        first_node.cri.state(pod)
    calls = first_node.recorder.calls(container_id=pod)
    assert [call.command for call in calls[:3]] == ["ADD", "DEL", "DEL"]
    assert [bool(call.netns) for call in calls[:3]] == [True, True, False]


def test_sandboxes_of_one_node_reach_each_other(cluster: Lab, first_node: Containerd) -> None:
    with sandbox(first_node) as one, sandbox(first_node) as other:
        silent = unanswered(
            cluster, str(first_node.cri.netns(one)), first_node.cri.addresses(other)
        )

    assert silent == []


def test_sandboxes_of_two_nodes_reach_each_other(
    cluster: Lab, first_node: Containerd, second_node: Containerd
) -> None:
    with sandbox(first_node) as here, sandbox(second_node) as there:
        there_from_here = unanswered(
            cluster, str(first_node.cri.netns(here)), second_node.cri.addresses(there)
        )
        here_from_there = unanswered(
            cluster, str(second_node.cri.netns(there)), first_node.cri.addresses(here)
        )

    assert (there_from_here, here_from_there) == ([], [])


def test_a_container_pings_another_pod(first_node: Containerd) -> None:
    config = first_node.cri.pod()
    with sandbox(first_node, config) as pod, sandbox(first_node) as other:
        container = first_node.cri.start_container(pod, config, image=images.BUSYBOX)

        for address in first_node.cri.addresses(other):
            status, output = first_node.cri.execute(
                container, "/bin/busybox", "ping", "-c", "1", "-W", "2", address
            )
            assert status == 0, output


def test_fifty_sandboxes_at_once_each_have_their_own_addresses(
    cluster: Lab, first_node: Containerd, all_gone: Callable[[], None]
) -> None:
    cri = first_node.cri
    configs = [cri.pod() for _ in range(MANY)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pods = list(pool.map(cri.run, configs))
        addresses = [address for pod in pods for address in cri.addresses(pod)]
        silent = unanswered(cluster, str(cri.netns(pods[0])), addresses[2:], count=1)
        list(pool.map(cri.stop, pods))
        list(pool.map(cri.remove, pods))

    assert len(set(addresses)) == 2 * MANY
    assert silent == []
    all_gone()
