# SPDX-License-Identifier: Apache-2.0
"""A change to another release of pycni while pods talk and other pods are made."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from cluster import manifests, network, pings, release
from cluster.kubectl import Json, is_ready
from cluster.machine import Machine
from cluster.pings import Pings
from cluster.scene import POD_SECONDS, Scene
from cluster.verdicts import Found
from cluster.waiting import until
from loader import pins
from pycni.errors import PycniError
from pycni.lab.checks import Check
from pycni.settings import Settings

ROLL_SECONDS = 300.0
PAUSE_SECONDS = 2.0
"""Between pods that are made meanwhile."""


def change(scene: Scene, what: str, image: str, apply: Callable[[str], None]) -> Iterator[Check]:
    """To the release of an image, which `apply` puts into the API: whether packets are lost, and
    pods that are made run."""
    before = _programs(scene)
    with ExitStack() as undo:
        flows = _start_pings(scene, undo)
        begun = time.monotonic()
        apply(image)
        made = _make_pods_until_done(scene, what)
        took = time.monotonic() - begun
        yield Check(f"{what}: {image} runs on every node after {took:.0f} s", passed=True)
        yield from _made_meanwhile(scene, what, made)
        for flow in flows:
            yield _answered(flow, what, took)
    versions = {_version(scene, node.name) for node in scene.cluster.machines}
    wanted = image.rpartition(":")[2]
    yield Check(f"{what}: every agent is of {wanted}", versions == {wanted}, str(versions))
    after = _programs(scene)
    same = [name for name in before if before[name] == after[name]]
    yield Check(f"{what}: other BPF programs run on every node", not same, f"not on {same}")


def reached(scene: Scene, targets: dict[str, Json]) -> Iterator[Check]:
    """Whether a server on each node reaches these pods, in both families."""
    places = {entry["ip"]: name for name, pod in targets.items()
              for entry in pod["status"].get("podIPs", ())}  # fmt: skip
    for source in scene.one_per_node:
        wanted = [address for address, name in places.items() if name != source]
        netns = pings.netns_of(scene.cluster, scene.servers[source])
        answers = pings.peer(netns, "echo", *wanted) if wanted else []
        lost = [f"{places[one['address']]} {one['address']}" for one in answers
                if one["received"] != one["sent"]]  # fmt: skip
        name = f"{source} reaches {len(wanted)} addresses of other pods"
        yield Check(name, bool(wanted) and not lost, f"not {', '.join(lost)}")


def wait_until_done(scene: Scene) -> Found:
    """Until every node has a ready agent of the release that was applied. Raises PycniError."""
    kubectl = scene.running.kubectl
    until(lambda: release.is_rolled_out(release.daemonset(kubectl)),
          "every node has a ready agent: see `python -m cluster kubectl -n kube-system describe "
          "pods`", ROLL_SECONDS)  # fmt: skip
    return None


def pod_is_ready(scene: Scene, pod: str) -> bool:
    return is_ready(scene.kubectl.get("pod", pod))


def _start_pings(scene: Scene, undo: ExitStack) -> list[Pings]:
    """From a server on each node to all others, in both families."""
    flows = []
    for source in scene.one_per_node:
        netns = pings.netns_of(scene.cluster, scene.servers[source])
        for target in scene.servers:
            for address in scene.addresses(target) if target != source else ():
                flow = Pings(source, target, address)
                undo.callback(flow.kill)
                flow.start(netns)
                flows.append(flow)
    return flows


def _answered(flow: Pings, what: str, seconds: float) -> Check:
    """Whether all pings were answered, and there were about as many as `seconds` have."""
    answers = flow.stop()
    few = answers.sent < seconds / pings.INTERVAL / 2
    name = f"{what}: none of {answers.sent} pings {flow.name} is lost"
    return Check(name, not answers.lost and not few, answers.words or "they are too few")


def _make_pods_until_done(scene: Scene, what: str) -> list[str]:
    """Pods on each node, one after the other, until every node has an agent of the new release."""
    made: list[str] = []
    deadline = time.monotonic() + ROLL_SECONDS
    while not release.is_rolled_out(release.daemonset(scene.running.kubectl)):
        if time.monotonic() > deadline:
            raise PycniError(
                f"not within {ROLL_SECONDS:g} s: {what} on every node",
                hint="see: python -m cluster kubectl -n kube-system describe pods",
            )
        pods = [manifests.server(f"{what}-{len(made)}-{node.name}", node.name)
                for node in scene.cluster.workers]  # fmt: skip
        scene.kubectl.apply(pods)
        made += [pod["metadata"]["name"] for pod in pods]
        time.sleep(PAUSE_SECONDS)
    return made


def _made_meanwhile(scene: Scene, what: str, made: list[str]) -> Iterator[Check]:
    """Whether these pods run, and servers reach them; they are deleted then."""
    late = []
    for name in made:
        try:
            until(partial(pod_is_ready, scene, name), name, POD_SECONDS)
        except PycniError:
            late.append(name)
    yield Check(f"{what}: {len(made)} pods that were made meanwhile run", bool(made) and not late,
                f"not Ready: {', '.join(late)}")  # fmt: skip
    yield from reached(scene, {name: scene.kubectl.get("pod", name) for name in made})
    if made:
        scene.kubectl("delete", "pods", *made, "--wait", timeout=POD_SECONDS)


def _version(scene: Scene, node: str) -> str:
    """The release whose agent runs on a node. Raises PycniError."""
    place = scene.cluster.layout.node(node)
    said = network.run(scene.running.kubectl, place, "version", "--output", "json")
    return str(json.loads(said)["pycni"])


def _programs(scene: Scene) -> dict[str, str]:
    """The fingerprint of the programs on each node."""
    found = {}
    for node in scene.cluster.machines:
        current = pins.current(Machine(node).path(str(Settings().pin_root)))
        found[node.name] = "" if current is None else pins.fingerprint(current)
    return found
