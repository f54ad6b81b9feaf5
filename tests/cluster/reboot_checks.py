# SPDX-License-Identifier: Apache-2.0
"""Checks of a node that loses its power under its pods and boots again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cluster import agents, manifests, reboot, traces
from cluster.kubectl import Json, is_ready
from cluster.manifests import HTTP_PORT
from cluster.scene import Scene, fetch, hostname_url
from cluster.verdicts import Found, one
from cluster.waiting import remaining, until
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode

PODS = 12
"""Besides those that are there."""
NODE_SECONDS = 120.0
PODS_SECONDS = 180.0
WELL_SECONDS = 60.0


def reboots(scene: Scene) -> Iterator[Check]:
    """All pods of the last node run again, in pycni's network, and nothing of before stays."""
    node = scene.cluster.workers[-1]
    before = traces.of_pods(scene.running, node)
    yield one(f"{PODS} more pods run on {node.name}", partial(_more_pods_run, scene, node))
    there, told = _pods(scene, node), _heartbeat(scene, node)
    reboot.lose_power(scene.running, node)
    reboot.boot(scene.running, node)
    scene.booted.add(node.name)
    yield one(f"{node.name} is Ready after it lost its power",
              partial(_is_ready_since, scene, node, told))  # fmt: skip
    yield one(f"all {len(there)} pods run again", partial(_run_again, scene, node, there))
    yield one(f"all {len(there)} pods answer", partial(_answer, scene, node))
    yield one(f"pycni on {node.name} is well", partial(_is_well, scene, node))
    scene.kubectl("delete", "pods", "--selector=many", "--wait", timeout=PODS_SECONDS)
    yield one(f"nothing of before is left on {node.name}",
              partial(traces.surplus, scene.running, node, before))  # fmt: skip


def _more_pods_run(scene: Scene, node: LabNode) -> Found:
    names = [f"many-{number}-{node.name}" for number in range(PODS)]
    made = [manifests.server(name, node.name) for name in names]
    for pod in made:
        pod["metadata"]["labels"]["many"] = "yes"
    scene.kubectl.apply(made)
    for name in names:
        scene.wait_until_ready(name)
    return None


def _pods(scene: Scene, node: LabNode) -> list[Json]:
    """Those of a node that are Ready whenever they run."""
    chosen = f"--field-selector=spec.nodeName={node.name}"
    items: list[Json] = scene.kubectl.get("pods", chosen)["items"]
    return [one for one in items if not one["metadata"]["name"].startswith("probed-")]


def _heartbeat(scene: Scene, node: LabNode) -> str:
    """When kubelet has told last that the node is Ready, or is not."""
    conditions = scene.kubectl.get("node", node.name)["status"]["conditions"]
    told: str = next(one["lastHeartbeatTime"] for one in conditions if one["type"] == "Ready")
    return told


def _is_ready_since(scene: Scene, node: LabNode, before: str) -> Found:
    """For a while the API shows what was told before."""

    def is_so() -> bool:
        return _heartbeat(scene, node) > before and is_ready(scene.kubectl.get("node", node.name))

    until(is_so, "it is Ready", NODE_SECONDS)
    return None


def _run_again(scene: Scene, node: LabNode, before: list[Json]) -> Found:
    """Each has been started again since."""
    restarts = {pod["metadata"]["name"]: _restarts(pod) for pod in before}

    def waiting() -> str:
        return ", ".join(
            pod["metadata"]["name"]
            for pod in _pods(scene, node)
            if not is_ready(pod) or _restarts(pod) <= restarts.get(pod["metadata"]["name"], -1)
        )

    return remaining(waiting, PODS_SECONDS)


def _restarts(pod: Json) -> int:
    statuses = pod["status"].get("containerStatuses", [])
    return sum(status["restartCount"] for status in statuses)


def _answer(scene: Scene, node: LabNode) -> Found:
    """Servers, at the addresses that they have now, to a pod of another node."""
    served = {pod["metadata"]["name"]: pod for pod in _pods(scene, node) if _is_server(pod)}
    scene.servers |= {name: pod for name, pod in served.items() if name in scene.servers}
    urls = {
        hostname_url(address["ip"], HTTP_PORT): name
        for name, pod in served.items()
        for address in pod["status"]["podIPs"]
    }
    answers = fetch(scene, scene.one_per_node[0], list(urls))
    wrong = {url: answer for url, answer in answers.items() if answer != urls[url]}
    return str(wrong) if wrong or len(urls) != 2 * len(served) else None


def _is_server(pod: Json) -> bool:
    name: str = pod["metadata"]["name"]
    return name.startswith(("a-", "b-", "many-"))


def _is_well(scene: Scene, node: LabNode) -> Found:
    def wrong() -> str:
        rows = agents.status(scene.running.kubectl, node)
        return ", ".join(f"{row['name']}: {row['cause']}" for row in rows
                         if row["state"] in ("degraded", "broken"))  # fmt: skip

    return remaining(wrong, WELL_SECONDS)
