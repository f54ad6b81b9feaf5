# SPDX-License-Identifier: Apache-2.0
"""Checks of a node that loses its power under its pods and boots again."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from cluster import agents, manifests, network, reboot, traces
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
PODS_SECONDS = 300.0
"""For as many as a node can have, on a busy computer."""
LOOK_SECONDS = 1.0
"""Between two looks at many pods, which take time from their start."""
ENDED = ("Failed", "Succeeded")
"""Phases of pods that hold no address any more."""
WELL_SECONDS = 60.0


def reboots(scene: Scene) -> Iterator[Check]:
    """All pods of the last node run again, in pycni's network, and nothing of before stays."""
    node = scene.cluster.workers[-1]
    before = traces.of_pods(scene.running, node)
    yield one(f"{PODS} more pods run on {node.name}", partial(more_pods_run, scene, node, PODS))
    yield from power_loss(scene, node)
    scene.kubectl("delete", "pods", "--selector=many", "--wait", timeout=PODS_SECONDS)
    yield one(f"nothing of before is left on {node.name}",
              partial(traces.surplus, scene.running, node, before))  # fmt: skip


def power_loss(scene: Scene, node: LabNode) -> Iterator[Check]:
    """The node ends under its pods, and boots; how long they were away is told."""
    there, told = pods_of(scene, node), heartbeat(scene, node)
    reboot.lose_power(scene.running, node)
    reboot.boot(scene.running, node)
    scene.booted.add(node.name)
    begun = time.monotonic()
    yield one(f"{node.name} is Ready after it lost its power",
              partial(is_ready_since, scene, node, told))  # fmt: skip
    again = one(f"all {len(there)} pods run again", partial(_run_again, scene, node, there))
    seconds = time.monotonic() - begun
    yield replace(again, name=f"{again.name}, {seconds:.0f} s after kubelet was started")
    yield one(f"all {len(there)} pods answer", partial(answer, scene, node))
    yield one(f"each address on {node.name} is one pod's", partial(given_once, scene, node))
    yield one(f"pycni on {node.name} is well", partial(is_well, scene, node))


def more_pods_run(scene: Scene, node: LabNode, count: int) -> Found:
    """So many servers with the label `many`. Raises PycniError."""
    names = [f"many-{number}-{node.name}" for number in range(count)]
    made = [manifests.server(name, node.name) for name in names]
    for pod in made:
        pod["metadata"]["labels"]["many"] = "yes"
    scene.kubectl.apply(made)
    scene.kubectl("wait", "--for=condition=Ready", "pods", "--selector=many",
                  f"--timeout={PODS_SECONDS:g}s", timeout=PODS_SECONDS + 10)  # fmt: skip
    return None


def pods_of(scene: Scene, node: LabNode) -> list[Json]:
    """Those of a node that are Ready whenever they run."""
    chosen = f"--field-selector=spec.nodeName={node.name}"
    items: list[Json] = scene.kubectl.get("pods", chosen)["items"]
    return [one for one in items if not one["metadata"]["name"].startswith("probed-")]


def heartbeat(scene: Scene, node: LabNode) -> str:
    """When kubelet has told last that the node is Ready, or is not."""
    conditions = scene.kubectl.get("node", node.name)["status"]["conditions"]
    told: str = next(one["lastHeartbeatTime"] for one in conditions if one["type"] == "Ready")
    return told


def is_ready_since(scene: Scene, node: LabNode, before: str) -> Found:
    """For a while the API shows what was told before."""

    def is_so() -> bool:
        reboot.supervise(node)
        return heartbeat(scene, node) > before and is_ready(scene.kubectl.get("node", node.name))

    until(is_so, "it is Ready", NODE_SECONDS)
    return None


def _run_again(scene: Scene, node: LabNode, before: list[Json]) -> Found:
    """Each has been started again since."""
    restarts = {pod["metadata"]["name"]: _restarts(pod) for pod in before}

    def waiting() -> str:
        return ", ".join(
            pod["metadata"]["name"]
            for pod in pods_of(scene, node)
            if not is_ready(pod) or _restarts(pod) <= restarts.get(pod["metadata"]["name"], -1)
        )

    return remaining(waiting, PODS_SECONDS, pause=LOOK_SECONDS)


def _restarts(pod: Json) -> int:
    statuses = pod["status"].get("containerStatuses", [])
    return sum(status["restartCount"] for status in statuses)


def answer(scene: Scene, node: LabNode) -> Found:
    """Servers, at the addresses that they have now, to a pod of another node."""
    served = {pod["metadata"]["name"]: pod for pod in pods_of(scene, node) if _is_server(pod)}
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


def given_once(scene: Scene, node: LabNode) -> Found:
    """No two pods of the cluster have one address; on the node pycni holds those of its pods, and
    no others."""

    def wrong() -> str:
        held, own = Counter[str](), set[str]()
        for pod in scene.running.kubectl.get("pods", "--all-namespaces")["items"]:
            spec, status = pod["spec"], pod["status"]
            if spec.get("hostNetwork") or status["phase"] in ENDED:
                continue
            addresses = [entry["ip"] for entry in status.get("podIPs", ())]
            held.update(addresses)
            if spec.get("nodeName") == node.name:
                own.update(addresses)
        said = network.run(scene.running.kubectl, node, "endpoints", "--output", "json")
        have = {row["address"] for row in json.loads(said)}
        found = [f"{address} is that of {count} pods" for address, count in held.items()
                 if count > 1]  # fmt: skip
        found += [f"{address} is no pod's" for address in sorted(have - own)]
        return ", ".join(found + [f"{address} is not held" for address in sorted(own - have)])

    return remaining(wrong, WELL_SECONDS, pause=LOOK_SECONDS)


def is_well(scene: Scene, node: LabNode) -> Found:
    def wrong() -> str:
        rows = agents.status(scene.running.kubectl, node)
        return ", ".join(f"{row['name']}: {row['cause']}" for row in rows
                         if row["state"] in ("degraded", "broken"))  # fmt: skip

    return remaining(wrong, WELL_SECONDS)
