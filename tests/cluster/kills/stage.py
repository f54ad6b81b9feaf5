# SPDX-License-Identifier: Apache-2.0
"""The pods between which packets flow, and what is looked at before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from cluster import manifests, network, scene
from cluster.kills import remains
from cluster.kills.crowd import Crowd
from cluster.kills.traffic import Balance, Meter, Place, flowing
from cluster.kubectl import Json
from cluster.life import Running
from cluster.scene import Scene, fetch
from cluster.verdicts import Found, one, to_the_end
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode
from support.snapshot import Snapshot

NAMESPACE = "pycni-kills"
RUN_SECONDS = 120.0
WELL_SECONDS = 60.0
EXECUTE_SECONDS = 60.0
SHOWN = 4
"""Of addresses that are not reached."""
PER_NODE = 2
"""Pods with traffic on each node."""


class Stage:
    """A cluster with pods between which packets flow."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.cluster = running.cluster
        self.scene = Scene(running, NAMESPACE)
        self.crowd = Crowd(self.scene.kubectl)
        self.places: list[Place] = []

    def set_up(self) -> Found:
        """The pods with traffic; those of a former run go first. Raises PycniError."""
        scene.make_namespace(self.scene)
        wanted = [
            manifests.server(f"{letter}-{node.name}", node.name)
            for node in self.cluster.workers
            for letter in "abcdefgh"[:PER_NODE]
        ]
        self.crowd.create(wanted)
        names = [pod["metadata"]["name"] for pod in wanted]
        self.scene.servers = self.crowd.wait_until_ready(names, RUN_SECONDS)
        self.places = [_place(pod) for pod in self.scene.servers.values()]
        return None

    @contextmanager
    def flowing(self) -> Iterator[Meter]:
        """Traffic between the pods of `set_up`."""
        with flowing(self.places, now=time.monotonic()) as meter:
            yield meter

    def reached(self, pods: dict[str, Json]) -> Found:
        """Whether a pod of each node reaches all of `pods`, in both families. Raises PycniError."""
        urls = {
            scene.hostname_url(address["ip"], manifests.HTTP_PORT): name
            for name, pod in pods.items()
            for address in pod["status"]["podIPs"]
        }
        wrong = [
            f"{source} -> {urls[url]} {url}: {answer}"
            for source in self.scene.one_per_node
            for url, answer in self._answers(source, urls).items()
            if answer != urls[url]
        ]
        return "; ".join(wrong[:SHOWN])

    def _answers(self, source: str, urls: dict[str, str]) -> dict[str, str]:
        """What each URL answers; `kubectl exec` is tried again, as its way may be away."""
        deadline = time.monotonic() + EXECUTE_SECONDS
        while True:
            answers = fetch(self.scene, source, list(urls))
            is_tried = set(answers.values()) <= {scene.FAILED, *urls.values()}
            if is_tried or time.monotonic() > deadline:
                return answers
            time.sleep(1.0)


Group = Callable[[Stage], Iterator[Check]]


def framed(group: Group, running: Running) -> Iterator[Check]:
    """The checks of a group, between those that its pods run, and that nothing is left of it."""
    stage = Stage(running)
    workers = running.cluster.workers
    before = {node: remains.take(running, node) for node in workers}
    ready = one(f"{PER_NODE} pods on each node run for the traffic", stage.set_up)
    yield ready
    if ready.passed:
        yield from to_the_end(_named(group, stage), stage.scene)
    yield one("the namespace is deleted with all in it", partial(scene.tear_down, stage.scene))
    for node, snapshot in before.items():
        yield one(f"nothing is left on {node.name}", partial(_left, stage, node, snapshot))
    for node in workers:
        yield one(f"pycni status of {node.name} is well", partial(_well, stage, node))


def weighed(name: str, balance: Balance) -> Check:
    """Whether no packet was lost; the name tells how many there were."""
    return Check(f"{name}: {balance}", not balance.faults(), "; ".join(balance.faults()))


def _named(group: Group, stage: Stage) -> Callable[[Scene], Iterator[Check]]:
    def act(_: Scene) -> Iterator[Check]:
        yield from group(stage)

    act.__name__ = getattr(group, "func", group).__name__
    return act


def _left(stage: Stage, node: LabNode, before: Snapshot) -> Found:
    return "; ".join(remains.more(stage.running, node, before))


def _well(stage: Stage, node: LabNode) -> Found:
    def faults() -> list[str]:
        return network.faults(stage.running.kubectl, node)

    try:
        until(lambda: not faults(), "it is well", WELL_SECONDS)
    except PycniError:
        return "; ".join(faults())
    return None


def _place(pod: Json) -> Place:
    metadata = pod["metadata"]
    addresses = tuple(address["ip"] for address in pod["status"]["podIPs"])
    return Place(metadata["name"], pod["spec"]["nodeName"], metadata["uid"], addresses)
