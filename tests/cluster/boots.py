# SPDX-License-Identifier: Apache-2.0
"""A node with as many pods as it can have: it loses its power, and is shut down in good order."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluster import logind, manifests, network, node, reboot, traces
from cluster.life import Running
from cluster.machine import Machine
from cluster.reboot_checks import (
    ENDED,
    PODS_SECONDS,
    answer,
    given_once,
    heartbeat,
    is_ready_since,
    is_well,
    more_pods_run,
    pods_of,
    power_loss,
)
from cluster.scene import Scene, make_namespace, tear_down
from cluster.verdicts import Found, one, to_the_end
from cluster.waiting import remaining, until
from pycni.lab import topology
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode
from pycni.names import NAME_HEAD

NAMESPACE = "pycni-boots"
FULL = 110
"""Pods that a kubelet takes, unless it is told otherwise."""
ANEW = 12
LOGIND = "logind"
SOCKET = "/run/dbus/system_bus_socket"
"""Of the system's bus, by D-Bus' specification."""
LOCK_SECONDS = 60.0
SHUTDOWN_SECONDS = 240.0
SHUTS_DOWN = "node is shutting down"
"""kubelet's words in the node's condition."""


@dataclass
class Full(Scene):
    """A scene whose last node is full."""

    namespace: str = NAMESPACE
    pods: int = FULL
    """On that node, all together."""

    @property
    def last(self) -> LabNode:
        return self.cluster.workers[-1]


def everything(running: Running, *, pods: int = FULL) -> Iterator[Check]:
    """All checks in order, in a namespace that is deleted in the end."""
    scene = Full(running, pods=pods)
    before = traces.of_pods(running, scene.last)
    ready = one(f"{pods} pods run on {scene.last.name}", partial(_set_up, scene))
    yield ready
    if ready.passed:
        for group in (loss_of_power, shutdown, boot):
            yield from to_the_end(group, scene)
    yield one("the namespace is deleted with all in it", partial(tear_down, scene))
    yield one(f"nothing of before is left on {scene.last.name}",
              partial(_nothing_more, scene, before))  # fmt: skip


def loss_of_power(scene: Full) -> Iterator[Check]:
    """All pods run again, at addresses that nobody else has."""
    last = scene.last
    yield one(f"each address on {last.name} is one pod's", partial(given_once, scene, last))
    yield from power_loss(scene, last)


def shutdown(scene: Full) -> Iterator[Check]:
    """kubelet ends all pods, and pycni's agent after the others, before the node ends."""
    last = scene.last
    machine, ending = Machine(last), len(pods_of(scene, last))
    yield one(f"kubelet of {last.name} holds a shutdown back", partial(_holds_back, scene))
    begun, daemon = time.monotonic(), machine.daemon(LOGIND)
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGUSR1)
    until(lambda: not daemon.alive, f"kubelet of {last.name} lets it shut down", SHUTDOWN_SECONDS)
    seconds = time.monotonic() - begun
    yield Check(f"{last.name} may shut down {seconds:.0f} s after it was told to", passed=True)
    yield one(f"{last.name} is not Ready: {SHUTS_DOWN}", partial(_says_so, scene))
    yield one(f"all {ending} pods have ended before", partial(_have_ended, scene))
    yield one(f"nothing of pods is left on {last.name}", partial(_is_empty, scene))


def boot(scene: Full) -> Iterator[Check]:
    """Others take the places of the pods that were ended, which run nowhere again."""
    last = scene.last
    told = heartbeat(scene, last)
    reboot.lose_power(scene.running, last)
    reboot.boot(scene.running, last)
    yield one(f"{last.name} is Ready after the shutdown",
              partial(is_ready_since, scene, last, told))  # fmt: skip
    network.wait_until_ready(scene.running.kubectl)
    scene.kubectl("delete", "pods", "--selector=many", "--wait", timeout=PODS_SECONDS)
    yield one(f"{ANEW} pods are made anew", partial(more_pods_run, scene, last, ANEW))
    yield one(f"all {ANEW} pods answer", partial(answer, scene, last))
    yield one(f"each address on {last.name} is one pod's", partial(given_once, scene, last))
    yield one(f"pycni on {last.name} is well", partial(is_well, scene, last))


def _set_up(scene: Full) -> Found:
    """A server on each other node, and the last one full."""
    make_namespace(scene)
    others = [manifests.server(f"a-{worker.name}", worker.name)
              for worker in scene.cluster.workers if worker != scene.last]  # fmt: skip
    scene.kubectl.apply(others)
    for pod in others:
        name = pod["metadata"]["name"]
        scene.wait_until_ready(name)
        scene.servers[name] = scene.kubectl.get("pod", name)
    chosen = f"--field-selector=spec.nodeName={scene.last.name}"
    there = scene.running.kubectl.get("pods", "--all-namespaces", chosen)["items"]
    count = sum(pod["status"]["phase"] not in ENDED for pod in there)
    return more_pods_run(scene, scene.last, scene.pods - count)


def _holds_back(scene: Full) -> Found:
    """With logind there, kubelet is started again, and takes a lock of it. It would release that at
    once before it has heard of its pods."""
    machine = Machine(scene.last)
    log = machine.log_path(LOGIND)
    log.unlink(missing_ok=True)
    machine.stop_daemon("kubelet")
    machine.start_daemon(LOGIND, [sys.executable, "-IS", Path(logind.__file__), SOCKET])
    until(machine.path(SOCKET).exists, "there is a bus", LOCK_SECONDS)
    node.start_kubelet(scene.cluster, scene.running.programs, scene.last, graceful=True)
    until(lambda: logind.HELD in log.read_text(), "kubelet holds a lock", LOCK_SECONDS)
    until(partial(_knows_its_pods, scene), "kubelet knows its pods", LOCK_SECONDS)
    return None


def _knows_its_pods(scene: Full) -> bool:
    done = scene.kubectl.run("get", "--raw", f"/api/v1/nodes/{scene.last.name}/proxy/pods")
    if done.returncode != 0:
        return False
    pods = json.loads(done.stdout)["items"] or ()  # null, if it knows none yet
    return len(pods) >= scene.pods


def _says_so(scene: Full) -> Found:
    conditions = scene.kubectl.get("node", scene.last.name)["status"]["conditions"]
    ready = next(one for one in conditions if one["type"] == "Ready")
    is_right = ready["status"] == "False" and SHUTS_DOWN in ready["message"]
    return None if is_right else str(ready)


def _have_ended(scene: Full) -> Found:
    phases = {pod["metadata"]["name"]: pod["status"]["phase"]
              for pod in pods_of(scene, scene.last)}  # fmt: skip
    return ", ".join(f"{name} is {phase}" for name, phase in phases.items() if phase not in ENDED)


def _is_empty(scene: Full) -> Found:
    """No link of pycni's, no namespace of the runtime's, and no result of libcni's."""
    last = scene.last
    with topology.open_rtnl(last.netns) as ipr:
        links = [link.ifname for link in ipr.links() if link.ifname.startswith(NAME_HEAD)]
    others = [line for line in traces.of_others(scene.cluster, last)
              if not line.startswith("control group")]  # fmt: skip
    return ", ".join([*links, *others])


def _nothing_more(scene: Full, before: set[str]) -> Found:
    """By number, as pods of before have other sandboxes; and less, as others are not there again:
    their controllers made them anew on other nodes."""

    def wrong() -> str:
        now = traces.of_pods(scene.running, scene.last)
        return ", ".join(f"{kind}: {number} more" for kind, number in
                         (traces.count(now) - traces.count(before)).items())  # fmt: skip

    return remaining(wrong, traces.LEFT_SECONDS)
