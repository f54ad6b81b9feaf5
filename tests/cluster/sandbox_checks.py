# SPDX-License-Identifier: Apache-2.0
"""Checks of sandboxes that fail, and of many that end at once: nothing of them stays."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cluster import manifests, traces
from cluster.commands import CNI_BIN, CNI_CONF
from cluster.machine import Machine
from cluster.scene import POD_SECONDS, Scene
from cluster.verdicts import Found, one
from cluster.waiting import until
from pycni.files import stage
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode
from pycni.setup.conflist import CONFLIST

FAILING = Path(__file__).with_name("failing.py")
"""A plugin whose first calls fail."""
STATE = "/run/failing"
FAILURES = {"ADD": 1, "DEL": 1}
"""A call of each kind fails; kubelet tries again after 10 s and more."""
ONE_POD = {"endpoint": 2, "link": 1, "network namespace": 1, "result": 2}
"""What a pod has on its node while it runs: of pycni, the runtime, and libcni, which has a result
of the plugin `loopback`, too."""
CROWD = 12
"""Pods of a node that end at once."""
CROWD_SECONDS = 180.0


def failed_sandboxes(scene: Scene) -> Iterator[Check]:
    """A plugin after pycni fails ADD, then DEL: kubelet tries again, and one sandbox remains."""
    node = scene.cluster.workers[0]
    name = f"failed-{node.name}"
    before = traces.of_pods(scene.running, node)
    with _failing(node):
        yield one(f"{name} runs after an ADD and its DEL that failed",
                  partial(_runs_at_last, scene, node, name))  # fmt: skip
        yield one(f"{node.name} has one sandbox of {name}", partial(_has_one, scene, node, before))
        yield one(f"{name} ends after a DEL that failed", partial(_ends, scene, node, name))
    yield one(f"nothing is left of {name}", partial(_nothing_more, scene, node, before))


def crowds(scene: Scene) -> Iterator[Check]:
    """Many pods of each node are made at once, and end at once."""
    nodes = scene.cluster.workers
    before = {node: traces.of_pods(scene.running, node) for node in nodes}
    number = CROWD * len(nodes)
    yield one(f"{number} pods run", partial(_crowd_runs, scene))
    yield one(f"{number} pods end at once", partial(_crowd_ends, scene))
    for node in nodes:
        name = f"nothing is left of {CROWD} pods on {node.name}"
        yield one(name, partial(_nothing_more, scene, node, before[node]))


@contextmanager
def _failing(node: LabNode) -> Iterator[None]:
    """The plugin behind pycni's in the list of a node."""
    machine = Machine(node)
    listed, plugin = (machine.path(f"{CNI_CONF}/{CONFLIST}"), machine.path(f"{CNI_BIN}/failing"))
    shutil.rmtree(machine.path(STATE), ignore_errors=True)  # of an earlier run
    before = listed.read_bytes()
    document = json.loads(before)
    document["plugins"].append({"type": "failing", "state": STATE, "failures": FAILURES})
    _put(plugin, FAILING.read_bytes(), mode=0o755)
    _put(listed, json.dumps(document).encode(), mode=0o644)
    try:
        yield
    finally:
        _put(listed, before, mode=0o644)
        plugin.unlink()


def _put(path: Path, content: bytes, *, mode: int) -> None:
    """By a rename: of another way no runtime learns."""
    stage(path, content, mode=mode).replace(path)


def _runs_at_last(scene: Scene, node: LabNode, name: str) -> Found:
    scene.kubectl.apply([manifests.server(name, node.name)])
    scene.wait_until_ready(name)
    until(lambda: any("this plugin fails" in words for words in _failures(scene, name)),
          "an event tells why a sandbox failed", POD_SECONDS)  # fmt: skip
    return None


def _failures(scene: Scene, pod: str) -> list[str]:
    """Why sandboxes of a pod failed, as events tell; they come some time later."""
    events = scene.kubectl.get("events", f"--field-selector=involvedObject.name={pod}")["items"]
    return [one["message"] for one in events if one["reason"] == "FailedCreatePodSandBox"]


def _has_one(scene: Scene, node: LabNode, before: set[str]) -> Found:
    new = traces.of_pods(scene.running, node) - before
    count = Counter(line.rpartition(" ")[0] for line in new)
    wrong = [f"{count[kind]} of {kind}, not {number}" for kind, number in ONE_POD.items()
             if count[kind] != number]  # fmt: skip
    return ", ".join(wrong and [*wrong, *sorted(new)])


def _ends(scene: Scene, node: LabNode, name: str) -> Found:
    counted = Machine(node).path(STATE) / "DEL"
    counted.unlink(missing_ok=True)  # the next one fails again
    scene.kubectl("delete", "pod", name, "--wait", timeout=POD_SECONDS)
    calls = int(counted.read_text())
    return None if calls > FAILURES["DEL"] else f"{calls} DEL"


def _nothing_more(scene: Scene, node: LabNode, before: set[str]) -> Found:
    return traces.left(scene.running, node, before)


def _crowd_runs(scene: Scene) -> Found:
    nodes = [node.name for node in scene.cluster.workers]
    scene.kubectl.apply([
        manifests.pod(f"crowd-{number}-{node}", node, "pause", labels={"crowd": "yes"})
        for node in nodes for number in range(CROWD)
    ])  # fmt: skip
    until(lambda: _crowd(scene) == {"Running": CROWD * len(nodes)}, "all of them run",
          CROWD_SECONDS)  # fmt: skip
    return None


def _crowd_ends(scene: Scene) -> Found:
    scene.kubectl("delete", "pods", "--selector=crowd", "--wait", timeout=CROWD_SECONDS)
    return str(_crowd(scene)) if _crowd(scene) else None


def _crowd(scene: Scene) -> Counter[str]:
    items = scene.kubectl.get("pods", "--selector=crowd")["items"]
    return Counter(item["status"]["phase"] for item in items)
