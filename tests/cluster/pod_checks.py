# SPDX-License-Identifier: Apache-2.0
"""Checks of pods that kubelet makes in other ways or with other wishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from cluster import manifests
from cluster.kubectl import Json
from cluster.layout import addresses
from cluster.machine import Machine
from cluster.manifests import HTTP_PORT
from cluster.scene import NAMESPACE, POD_SECONDS, Scene, fetch, hostname_url
from cluster.verdicts import Found, one
from cluster.waiting import until
from pycni.lab.checks import Check
from pycni.lab.layout import LabNode

STATIC_PODS = "/etc/kubernetes/manifests"
HOST_PORT = 31600
"""Of a server in the host's network."""

RATE = "16M"
"""Bits per second, in an annotation of Kubernetes."""
BYTES = 4_000_000
CREATED = "201"
"""The status of an upload that was taken."""
LEAST_SECONDS = 1.5
"""Of so many bytes at that rate: 2 s less what bursts let pass. Without a limit it is 0.1 s."""
UPLOAD = f"""head -c {BYTES} /dev/zero >/tmp/zeros
curl -g -s -o /dev/null -m 60 -w '%{{http_code}} %{{time_total}}' -F file=@/tmp/zeros "$1" """
"""A script: the status and the seconds of an upload to a URL."""


def static_pods(scene: Scene) -> Iterator[Check]:
    """A pod that is a file on a node, with its network in both families; gone with the file."""
    for node in scene.cluster.workers:
        yield one(f"a static pod of {node.name} answers", partial(_static_pod_answers, scene, node))
        yield one(f"a static pod of {node.name} ends", partial(_static_pod_ends, scene, node))


def bandwidth(scene: Scene) -> Iterator[Check]:
    """The annotations of Kubernetes limit a pod, each way by itself."""
    for node in scene.cluster.workers:
        name, other = f"limited-{node.name}", f"b-{node.name}"
        yield one(f"{name} runs", partial(_limited_runs, scene, node))
        for source, target in ((other, name), (name, other)):
            words = f"{source} -> {target}: no more than {RATE} bit/s"
            yield one(words, partial(_is_slow, scene, source, target))


def sources(scene: Scene) -> Iterator[Check]:
    """Pods and nodes see a pod's own address, in both families."""
    for node in scene.cluster.workers:
        yield one(f"a server runs in the network of {node.name}",
                  partial(_host_server_runs, scene, node))  # fmt: skip
    for source in scene.one_per_node:
        pods = [(other, scene.addresses(other), HTTP_PORT)
                for other in scene.servers if other != source]  # fmt: skip
        hosts = [(node.name, addresses(node), HOST_PORT) for node in scene.cluster.workers]
        for target, places, port in (*pods, *hosts):
            for own, place in zip(scene.addresses(source), places, strict=True):
                url = hostname_url(place, port).replace("/hostname", "/clientip")
                (answer,) = fetch(scene, source, [url]).values()
                seen = answer.rpartition(":")[0].strip("[]")
                yield Check(f"{target} sees {source} as {own}", seen == own, answer)


def network_policies(scene: Scene) -> Iterator[Check]:
    """Whoever writes one is told that nothing enforces it."""
    policy = manifests.network_policy("deny-all")
    done = scene.kubectl.run("apply", "--filename=-", stdin=json.dumps(policy))
    said = done.stderr.decode(errors="replace")
    is_right = done.returncode == 0 and "does not enforce network policies" in said
    yield Check("a NetworkPolicy is stored, with a warning", is_right, said)


def _static_pod(node: LabNode) -> Json:
    made = manifests.server("static", node.name)
    made["metadata"]["namespace"] = NAMESPACE
    del made["spec"]["nodeName"]
    return made


def _static_pod_answers(scene: Scene, node: LabNode) -> Found:
    name = f"static-{node.name}"
    directory = Machine(node).path(STATIC_PODS)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "static.json").write_text(json.dumps(_static_pod(node)))
    scene.wait_until_ready(name)
    found = [one["ip"] for one in scene.kubectl.get("pod", name)["status"]["podIPs"]]
    asked = [hostname_url(address, HTTP_PORT) for address in found]
    answers = fetch(scene, scene.one_per_node[0], asked)
    is_right = len(found) == len(scene.cluster.layout.nodes[0].underlay)
    return None if is_right and set(answers.values()) == {name} else str(answers)


def _static_pod_ends(scene: Scene, node: LabNode) -> Found:
    (Machine(node).path(STATIC_PODS) / "static.json").unlink()
    until(lambda: scene.kubectl.run("get", "pod", f"static-{node.name}").returncode != 0,
          "it is gone", POD_SECONDS)  # fmt: skip
    return None


def _limited_runs(scene: Scene, node: LabNode) -> Found:
    name = f"limited-{node.name}"
    made = manifests.server(name, node.name)
    kinds = ("ingress", "egress")
    made["metadata"]["annotations"] = {f"kubernetes.io/{kind}-bandwidth": RATE for kind in kinds}
    scene.kubectl.apply([made])
    scene.wait_until_ready(name)
    scene.servers[name] = scene.kubectl.get("pod", name)
    return None


def _is_slow(scene: Scene, source: str, target: str) -> Found:
    url = hostname_url(scene.addresses(target)[0], HTTP_PORT).replace("/hostname", "/upload")
    said = scene.kubectl.execute(source, "sh", "-c", UPLOAD, "sh", url)
    status, _, seconds = said.partition(" ")
    return None if status == CREATED and float(seconds) >= LEAST_SECONDS else said


def _host_server_runs(scene: Scene, node: LabNode) -> Found:
    name = f"host-{node.name}"
    made = manifests.server(name, node.name, port=HOST_PORT)
    made["spec"]["hostNetwork"] = True
    scene.kubectl.apply([made])
    scene.wait_until_ready(name)
    return None
