# SPDX-License-Identifier: Apache-2.0
"""What `make cluster` proves: each check has a name, and passed or failed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cluster import network, runtime, traces
from cluster.host_checks import cut_pods, held_files, status_calls
from cluster.kubectl import is_ready
from cluster.layout import Cluster
from cluster.life import Running
from cluster.manifests import HTTP_PORT
from cluster.pod_checks import bandwidth, network_policies, sources, static_pods
from cluster.reboot_checks import reboots
from cluster.runtime_checks import polled_status, users_of_their_own
from cluster.sandbox_checks import crowds, failed_sandboxes
from cluster.scene import (
    FAILED,
    POD_SECONDS,
    WORDS,
    Scene,
    fetch,
    hostname_url,
    set_up,
    tear_down,
)
from cluster.service_checks import host_ports, names, rolling_update, services
from cluster.verdicts import Found, Group, one, to_the_end
from cluster.waiting import until
from pycni.lab.checks import Check


def everything(running: Running) -> Iterator[Check]:
    """All checks in order, in a namespace that is deleted in the end."""
    scene = Scene(running)
    yield from to_the_end(nodes, scene)
    before = {node: traces.of_pods(running, node) for node in running.cluster.workers}
    ready = one("pods run on every node", partial(set_up, scene))
    yield ready
    if ready.passed:
        for group in groups(running.cluster):
            yield from to_the_end(group, scene)
    yield one("the namespace is deleted with all in it", partial(tear_down, scene))
    for node, traced in before.items():
        name = f"nothing is left of the pods on {node.name}"
        look = traces.surplus if node.name in scene.booted else traces.left
        yield one(name, partial(look, running, node, traced))


def groups(cluster: Cluster) -> list[Group]:
    """What can be checked: nothing of Services where nobody makes them, and nothing that a runtime
    does not do."""
    of_services: list[Group] = [services, names, rolling_update] * (cluster.kube_proxy != "none")
    of_hosts: list[Group] = [held_files, cut_pods, status_calls]
    of_pods: list[Group] = [static_pods, bandwidth, sources, network_policies]
    newer: list[Group] = [users_of_their_own, polled_status] * runtime.of(cluster).is_built
    of_failures: list[Group] = [failed_sandboxes, crowds, reboots]
    return [pods, commands_in_pods, probes, host_ports, *of_services, *of_hosts, *of_pods, *newer,
            *of_failures, deletion]  # fmt: skip


def nodes(scene: Scene) -> Iterator[Check]:
    """Every node is Ready."""
    for node in scene.cluster.workers:
        yield one(f"{node.name} is Ready", partial(_node_is_ready, scene, node.name))


def pods(scene: Scene) -> Iterator[Check]:
    """Every server reaches every other, on its node and on others, in both families."""
    for source in scene.servers:
        targets = [
            (target, address, hostname_url(address, HTTP_PORT))
            for target in scene.servers
            if target != source
            for address in scene.addresses(target)
        ]
        answers = fetch(scene, source, [url for _, _, url in targets])
        for target, address, url in targets:
            name = f"{source} -> {target} {address}"
            yield Check(name, answers[url] == target, answers[url])


def commands_in_pods(scene: Scene) -> Iterator[Check]:
    """exec with standard input and an exit status, and logs."""
    for source in scene.one_per_node:
        yield one(f"exec in {source}", partial(_execute, scene, source))
    for node in scene.cluster.workers:
        pod = f"speaker-{node.name}"
        yield one(f"logs of {pod}", partial(_logs, scene, pod))


def probes(scene: Scene) -> Iterator[Check]:
    """A pod is Ready while its probe says so, and starts again when it is dead."""
    for node in scene.cluster.workers:
        pod = f"probed-{node.name}"
        yield one(f"{pod} is not Ready before its probe passes", partial(_unready, scene, pod))
        yield one(f"{pod} is Ready when its probe passes", partial(_readied, scene, pod))
        yield one(f"{pod} starts again when it is dead", partial(_revived, scene, pod))


def deletion(scene: Scene) -> Iterator[Check]:
    """A deleted pod is gone from the API and from its node, and nobody reaches it."""
    for node in scene.cluster.workers:
        server, other = f"b-{node.name}", f"a-{node.name}"
        yield one(f"{server} is deleted", partial(_delete, scene, server))
        yield one(f"pycni on {node.name} forgets {server}", partial(_forgets, scene, server))
        answers = fetch(scene, other, scene.urls(server))
        gone = set(answers.values()) == {FAILED}
        yield Check(f"{other} does not reach {server} any more", gone, str(answers))


def _node_is_ready(scene: Scene, name: str) -> Found:
    node = scene.kubectl.get("node", name)
    return None if is_ready(node) else str(node["status"]["conditions"])


def _execute(scene: Scene, pod: str) -> Found:
    script = ("exec", "--stdin", pod, "--", "sh", "-c", "cat; exit 3")
    done = scene.kubectl.run(*script, stdin=WORDS)
    said = done.stdout.decode(errors="replace")
    return None if (said, done.returncode) == (WORDS, 3) else f"{said!r}, status {done.returncode}"


def _logs(scene: Scene, pod: str) -> Found:
    until(lambda: WORDS in scene.kubectl("logs", pod), f"{pod} has said its words", POD_SECONDS)
    return None


def _unready(scene: Scene, pod: str) -> Found:
    until(lambda: scene.kubectl.get("pod", pod)["status"]["phase"] == "Running",
          f"{pod} runs", POD_SECONDS)  # fmt: skip
    return "it is Ready" if is_ready(scene.kubectl.get("pod", pod)) else None


def _readied(scene: Scene, pod: str) -> Found:
    scene.kubectl.execute(pod, "touch", "/tmp/ready")
    until(lambda: is_ready(scene.kubectl.get("pod", pod)), f"{pod} is Ready", POD_SECONDS)
    return None


def _revived(scene: Scene, pod: str) -> Found:
    scene.kubectl.execute(pod, "touch", "/tmp/dead")
    until(lambda: _restarts(scene, pod) > 0, f"{pod} starts again", POD_SECONDS)
    return None


def _restarts(scene: Scene, pod: str) -> int:
    statuses = scene.kubectl.get("pod", pod)["status"].get("containerStatuses", [])
    return sum(status["restartCount"] for status in statuses)


def _delete(scene: Scene, pod: str) -> Found:
    scene.kubectl("delete", "pod", pod, "--wait", timeout=POD_SECONDS)
    return "it is still there" if scene.kubectl.run("get", "pod", pod).returncode == 0 else None


def _forgets(scene: Scene, server: str) -> Found:
    node = scene.cluster.layout.node(scene.node(server))
    said = network.run(scene.running.kubectl, node, "endpoints", "--output", "json")
    left = [address for address in scene.addresses(server) if f'"{address}"' in said]
    return f"still there: {left}" if left else None
