# SPDX-License-Identifier: Apache-2.0
"""What `make cluster` proves: each check has a name, and passed or failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from cluster.kubectl import is_ready
from cluster.layout import DNS_DOMAIN, addresses
from cluster.life import Running
from cluster.machine import Machine
from cluster.manifests import HTTP_PORT
from cluster.network import command
from cluster.scene import (
    CURL_SECONDS,
    FAILED,
    NAMESPACE,
    POD_SECONDS,
    WORDS,
    Scene,
    fetch,
    hostname_url,
    set_up,
    start_knocking,
    stop_knocking,
    tear_down,
    wait_for_rollout,
    web_pods,
)
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab import processes
from pycni.lab.checks import Check

Found = str | None
"""What a check that failed has seen; empty or None if it passed."""
Group = Callable[[Scene], Iterator[Check]]


def everything(running: Running) -> Iterator[Check]:
    """All checks in order, in a namespace that is deleted in the end."""
    scene = Scene(running)
    yield from _to_the_end(nodes, scene)
    ready = _one("pods run on every node", partial(set_up, scene))
    yield ready
    if ready.passed:
        for group in groups(running.cluster.kube_proxy):
            yield from _to_the_end(group, scene)
    yield _one("the namespace is deleted with all in it", partial(tear_down, scene))


def groups(kube_proxy: str) -> list[Group]:
    """What can be checked: nothing of Services where nobody makes them."""
    of_services: list[Group] = [services, names, rolling_update]
    return [pods, commands_in_pods, probes, *of_services * (kube_proxy != "none"), deletion]


def nodes(scene: Scene) -> Iterator[Check]:
    """Every node is Ready."""
    for node in scene.cluster.workers:
        yield _one(f"{node.name} is Ready", partial(_node_is_ready, scene, node.name))


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
        yield _one(f"exec in {source}", partial(_execute, scene, source))
    for node in scene.cluster.workers:
        pod = f"speaker-{node.name}"
        yield _one(f"logs of {pod}", partial(_logs, scene, pod))


def probes(scene: Scene) -> Iterator[Check]:
    """A pod is Ready while its probe says so, and starts again when it is dead."""
    for node in scene.cluster.workers:
        pod = f"probed-{node.name}"
        yield _one(f"{pod} is not Ready before its probe passes", partial(_unready, scene, pod))
        yield _one(f"{pod} is Ready when its probe passes", partial(_readied, scene, pod))
        yield _one(f"{pod} starts again when it is dead", partial(_revived, scene, pod))


def services(scene: Scene) -> Iterator[Check]:
    """A Service answers by its addresses from a pod on each node, and by node port from outside."""
    service = scene.kubectl.get("service", "web")["spec"]
    for source in scene.one_per_node:
        urls = {hostname_url(address): address for address in service["clusterIPs"]}
        for url, answer in fetch(scene, source, list(urls)).items():
            yield Check(f"{source} -> ClusterIP {urls[url]}", _is_web(answer), answer)
    port = service["ports"][0]["nodePort"]
    for node in scene.cluster.workers:
        for address in addresses(node):
            name = f"client -> {node.name} NodePort {address}"
            yield _one(name, partial(_from_outside, scene, hostname_url(address, port)))


def names(scene: Scene) -> Iterator[Check]:
    """The cluster's DNS, from a pod on each node: short and long names of Services."""
    for source in scene.one_per_node:
        for name in ("web", f"web.{NAMESPACE}.svc.{DNS_DOMAIN}"):
            (answer,) = fetch(scene, source, [hostname_url(name)]).values()
            yield Check(f"{source} -> DNS {name}", _is_web(answer), answer)
        name = "kubernetes.default"
        yield _one(f"{source} -> DNS {name}", partial(_resolves, scene, source, name))


def rolling_update(scene: Scene) -> Iterator[Check]:
    """A Deployment gets other pods while clients on each node make requests; none is lost."""
    begun = {source: start_knocking(scene, source) for source in scene.one_per_node}
    yield _one("a rolling update ends", partial(_roll, scene))
    for source, knocking in begun.items():
        name = f"no request of {source} is lost meanwhile"
        yield _one(name, partial(_none_lost, scene, source, knocking))


def deletion(scene: Scene) -> Iterator[Check]:
    """A deleted pod is gone from the API and from its node, and nobody reaches it."""
    for node in scene.cluster.workers:
        server, other = f"b-{node.name}", f"a-{node.name}"
        yield _one(f"{server} is deleted", partial(_delete, scene, server))
        yield _one(f"pycni on {node.name} forgets {server}", partial(_forgets, scene, server))
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


def _is_web(answer: str) -> bool:
    """Whether that is the name of one of the Deployment's pods."""
    return answer.startswith("web-")


def _from_outside(scene: Scene, url: str) -> Found:
    request = ["curl", "-g", "-s", "-f", "-m", str(CURL_SECONDS), url]
    done = processes.run(scene.cluster.client.netns, request)
    answer = done.stdout.decode(errors="replace")
    return None if _is_web(answer) else f"{answer!r}, curl's status {done.returncode}"


def _resolves(scene: Scene, pod: str, name: str) -> Found:
    return None if scene.kubectl.execute(pod, "getent", "hosts", name) else "no address"


def _roll(scene: Scene) -> Found:
    before = web_pods(scene)
    scene.kubectl("rollout", "restart", "deployment/web")
    wait_for_rollout(scene)
    until(lambda: not before & web_pods(scene), "the old pods are gone", POD_SECONDS)
    time.sleep(1.0)  # some more requests, to new pods only
    return None


def _none_lost(scene: Scene, pod: str, knocking: processes.Kept) -> Found:
    said = stop_knocking(scene, pod, knocking)
    count, _, lost = said.partition(" ")
    return None if count.isdigit() and int(count) and lost == "0" else f"requests, lost: {said!r}"


def _delete(scene: Scene, pod: str) -> Found:
    scene.kubectl("delete", "pod", pod, "--wait", timeout=POD_SECONDS)
    return "it is still there" if scene.kubectl.run("get", "pod", pod).returncode == 0 else None


def _forgets(scene: Scene, server: str) -> Found:
    machine = Machine(scene.cluster.layout.node(scene.node(server)))
    said = machine.run(command(scene.cluster, "endpoints", "--output", "json")).stdout
    left = [address for address in scene.addresses(server) if f'"{address}"' in said]
    return f"still there: {left}" if left else None


def _to_the_end(group: Group, scene: Scene) -> Iterator[Check]:
    """A group that cannot go on is one failed check."""
    try:
        yield from group(scene)
    except PycniError as error:
        yield Check(group.__name__.replace("_", " "), passed=False, found=_words(error))


def _one(name: str, check: Callable[[], Found]) -> Check:
    """Run one; what raises PycniError has failed."""
    try:
        found = check()
    except PycniError as error:
        found = _words(error)
    return Check(name, passed=not found, found=found or "")


def _words(error: PycniError) -> str:
    return "; ".join(part for part in (error.message, error.details) if part)
