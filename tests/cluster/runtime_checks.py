# SPDX-License-Identifier: Apache-2.0
"""Checks of what only newer runtimes do: they ask pycni for its STATUS, and make pods with users of
their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from cluster import agents, manifests, network
from cluster.kubectl import is_ready
from cluster.machine import Machine
from cluster.manifests import HTTP_PORT
from cluster.scene import Scene, fetch, hostname_url
from cluster.verdicts import Found, one
from cluster.waiting import remaining, until
from pycni.errors import PycniError
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode
from pycni.node.overlay import DEVICE

REASON = f"the device {DEVICE} is missing or down"
"""What pycni's STATUS says then, where no agent answers that would mend it."""
TOLD_SECONDS = 60.0
"""The runtime is asked every 5 s, and the kubelet tells the API every 10 s."""
MENDED_SECONDS = 60.0
ALL_USERS = 0xFFFF_FFFF
"""Of the host's user namespace (user_namespaces(7)): as many users as it maps."""


def polled_status(scene: Scene) -> Iterator[Check]:
    """A node whose overlay is down is not Ready, in pycni's words, until that is mended."""
    for node in scene.cluster.workers:
        yield one(f"{node.name} is not Ready, by STATUS, while its overlay is down",
                  partial(_tells_status, scene, node))  # fmt: skip
        yield one(f"{node.name} is Ready when the agent has mended it",
                  partial(_is_ready_again, scene, node))  # fmt: skip
        yield one(f"pods of {node.name} are reached again", partial(_are_reached, scene, node))


def users_of_their_own(scene: Scene) -> Iterator[Check]:
    """A pod whose network namespace belongs to a user namespace of its own (hostUsers: false)."""
    for node in scene.cluster.workers:
        name = f"users-{node.name}"
        runs = one(f"{name} has users of its own", partial(_has_own_users, scene, node, name))
        yield runs
        if runs.passed:
            yield one(f"{name} is reached from every node", partial(_is_reached, scene, name))
            yield one(f"{name} reaches the others", partial(_reaches, scene, name))


@contextmanager
def _without_agent(node: LabNode) -> Iterator[None]:
    """The agent of a node is stopped (SIGSTOP) inside of the block. Raises PycniError."""
    agent = network.agent(node)
    if agent is None:
        raise PycniError(f"no agent of pycni runs on {node.name}", hint=agents.HINT)
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if agent.alive:
            os.kill(agent.pid, signal.SIGCONT)


def _tells_status(scene: Scene, node: LabNode) -> Found:
    with _without_agent(node):
        Machine(node).run(["ip", "link", "set", "dev", DEVICE, "down"])
        return remaining(lambda: _unlike_reason(scene, node), TOLD_SECONDS)


def _unlike_reason(scene: Scene, node: LabNode) -> str:
    """What the API says of a node, unless that is the reason."""
    found = scene.kubectl.get("node", node.name)
    told: str = next(condition["message"] for condition in found["status"]["conditions"]
                     if condition["type"] == "Ready")  # fmt: skip
    return "" if REASON in told and not is_ready(found) else told


def _is_ready_again(scene: Scene, node: LabNode) -> Found:
    until(lambda: is_ready(scene.kubectl.get("node", node.name)), "it is Ready", MENDED_SECONDS)
    for name in scene.servers:
        if scene.node(name) == node.name:
            scene.wait_until_ready(name)
    return None


def _are_reached(scene: Scene, node: LabNode) -> Found:
    """From the other nodes, in both families."""
    targets = [name for name in scene.one_per_node if scene.node(name) == node.name]
    for source in scene.one_per_node:
        for target in targets:
            if source != target and (wrong := _wrong(scene, source, target)):
                return wrong
    return None


def _wrong(scene: Scene, source: str, target: str) -> str:
    answers = fetch(scene, source, scene.urls(target))
    return "" if set(answers.values()) == {target} else f"{source}: {answers}"


def _has_own_users(scene: Scene, node: LabNode, name: str) -> Found:
    made = manifests.server(name, node.name)
    made["spec"]["hostUsers"] = False
    scene.kubectl.apply([made])
    scene.wait_until_ready(name)
    scene.servers[name] = scene.kubectl.get("pod", name)
    said = scene.kubectl.execute(name, "cat", "/proc/self/uid_map")
    return said if int(said.split()[-1]) == ALL_USERS else None


def _is_reached(scene: Scene, name: str) -> Found:
    wrong = [_wrong(scene, source, name) for source in scene.one_per_node]
    return "; ".join(filter(None, wrong))


def _reaches(scene: Scene, name: str) -> Found:
    urls = {hostname_url(address, HTTP_PORT): target
            for target in scene.one_per_node for address in scene.addresses(target)}  # fmt: skip
    answers = fetch(scene, name, list(urls))
    return None if answers == urls else str(answers)
