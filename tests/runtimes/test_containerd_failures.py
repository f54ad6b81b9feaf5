# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around a pod: the plugin, the runtime and the namespace fail or vanish.

In the end the node is always as it was before the pod.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loader import libbpf
from pycni.lab import processes
from pycni.lab.cluster import Lab
from runtimes.containerd import Containerd, sandbox
from runtimes.cri import Refused
from runtimes.recorder import Call
from support.flood import unanswered
from support.waiting import wait_until

IMPOSSIBLE_MTU = 70000
"""Bytes; no IP packet is that long, and pycni says so."""

SMALL_MTU = 1300
IMPATIENCE = 1.5
"""Seconds after which the client of a hanging call goes away."""
FAILURES = 5

Gone = Callable[[], None]


@pytest.fixture(autouse=True)
def _mended(first_node: Containerd) -> Iterator[None]:
    first_node.recorder.forget()
    yield
    first_node.mend()


def test_the_plugins_words_reach_the_client(first_node: Containerd, all_gone: Gone) -> None:
    first_node.configure(mtu=IMPOSSIBLE_MTU)

    with pytest.raises(Refused, match="mtu in the network configuration is wrong"):
        first_node.cri.run(first_node.cri.pod())

    assert first_node.recorder.calls("DEL") != []
    all_gone()


def test_a_pod_that_failed_again_and_again_can_be_made_at_last(
    first_node: Containerd, all_gone: Gone
) -> None:
    config = first_node.cri.pod()
    first_node.configure(mtu=IMPOSSIBLE_MTU)
    for attempt in range(FAILURES):
        config.metadata.attempt = attempt
        with pytest.raises(Refused):
            first_node.cri.run(config)
    first_node.configure()
    config.metadata.attempt = FAILURES

    with sandbox(first_node, config) as pod:
        assert len(first_node.cri.addresses(pod)) == 2

    all_gone()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_plugin_killed_at_the_clients_deadline_leaves_nothing(
    first_node: Containerd, all_gone: Gone, when: str
) -> None:
    with first_node.recorder.holding("ADD", when=when):
        with pytest.raises(Refused) as refused:
            first_node.cri.run(first_node.cri.pod(), timeout=IMPATIENCE)

        (added,) = first_node.recorder.calls("ADD")
        wait_until(lambda: deleted(first_node, added), "DEL")

    assert refused.value.code == "DEADLINE_EXCEEDED"
    assert first_node.cri.sandboxes() == []
    all_gone()


def test_a_pod_whose_namespace_was_unmounted_is_stopped(
    first_node: Containerd, all_gone: Gone
) -> None:
    with sandbox(first_node) as pod:
        libbpf.unmount(first_node.cri.netns(pod))
        first_node.cri.stop(pod)

    all_gone()


def test_a_pod_whose_shim_was_killed_is_stopped(first_node: Containerd, all_gone: Gone) -> None:
    with sandbox(first_node) as pod:
        pause = first_node.cri.pid(pod)
        shim = parent(pause)
        assert "containerd-shim" in Path(f"/proc/{shim}/cmdline").read_text()

        os.kill(shim, signal.SIGKILL)
        os.kill(pause, signal.SIGKILL)
        wait_until(lambda: processes.start_time(pause) is None, "the sandbox ends")
        first_node.cri.stop(pod)

    all_gone()


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_pods_outlive_containerd_and_its_successor_stops_them(
    cluster: Lab, first_node: Containerd, all_gone: Gone, kill: bool
) -> None:
    with sandbox(first_node) as one, sandbox(first_node) as other:
        netns, addresses = first_node.cri.netns(one), first_node.cri.addresses(other)

        first_node.stop(kill=kill)
        silent_without = unanswered(cluster, str(netns), addresses)
        first_node.start()

        assert silent_without == []
        assert first_node.cri.addresses(other) == addresses
        assert unanswered(cluster, str(netns), addresses) == []

    all_gone()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_pod_is_removed_after_containerd_was_killed_in_mid_add(
    first_node: Containerd, all_gone: Gone, when: str
) -> None:
    with killed_in_mid_add(first_node, when=when):
        pass
    first_node.start()

    (left,) = first_node.cri.sandboxes()
    with sandbox(first_node) as successor:
        assert len(first_node.cri.addresses(successor)) == 2
    first_node.cri.stop(left)
    first_node.cri.remove(left)

    all_gone()


def test_an_add_that_comes_after_its_pods_removal_leaves_nothing(
    first_node: Containerd, all_gone: Gone
) -> None:
    """The plugin outlives the containerd that executed it, and begins only now."""
    with killed_in_mid_add(first_node, when="before", kill_plugin=False):
        first_node.start()
        (left,) = first_node.cri.sandboxes()
        first_node.cri.stop(left)
        first_node.cri.remove(left)

    all_gone()


def test_a_pod_that_nobody_deletes_goes_with_its_namespace(
    first_node: Containerd, all_gone: Gone
) -> None:
    """The kernel ends the link, and the agent hears of it."""
    with killed_in_mid_add(first_node, when="after") as added:
        pass

    libbpf.unmount(Path(added.netns))

    all_gone()
    first_node.start()
    (left,) = first_node.cri.sandboxes()
    first_node.cri.stop(left)
    first_node.cri.remove(left)


def test_pods_are_not_stopped_without_a_network_and_are_with_it(
    cluster: Lab, first_node: Containerd, all_gone: Gone
) -> None:
    with sandbox(first_node) as one, sandbox(first_node) as other:
        first_node.unconfigure()
        try:
            silent = unanswered(
                cluster, str(first_node.cri.netns(one)), first_node.cri.addresses(other)
            )
            with pytest.raises(Refused, match="cni plugin not initialized"):
                first_node.cri.stop(one)
        finally:
            first_node.configure()

        assert silent == []
    all_gone()


def test_a_changed_network_serves_old_pods_and_new(
    cluster: Lab, first_node: Containerd, all_gone: Gone
) -> None:
    with sandbox(first_node) as old:
        first_node.configure(mtu=SMALL_MTU, ipMasq=False)
        with sandbox(first_node) as new:
            mtus = first_node.mtu(old), first_node.mtu(new)
            silent = unanswered(
                cluster, str(first_node.cri.netns(new)), first_node.cri.addresses(old)
            )

    assert mtus[0] > mtus[1] == SMALL_MTU
    assert silent == []
    all_gone()


@contextmanager
def killed_in_mid_add(node: Containerd, *, when: str, kill_plugin: bool = True) -> Iterator[Call]:
    """containerd is killed while its plugin hangs; the plugin is killed too, or goes on, at the
    end of the block."""
    with (
        node.recorder.holding("ADD", when=when, kill=kill_plugin) as held,
        node.cri.starting(node.cri.pod()),
    ):
        wait_until(held.exists, "ADD hangs")
        (added,) = node.recorder.calls("ADD")
        node.stop(kill=True)
        yield added


def deleted(node: Containerd, added: Call) -> bool:
    return bool(node.recorder.calls("DEL", container_id=added.container_id))


def parent(pid: int) -> int:
    """PID of the parent (proc(5), stat, field 4)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
