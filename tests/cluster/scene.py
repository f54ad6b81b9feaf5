# SPDX-License-Identifier: Apache-2.0
"""What the checks act with: a namespace with servers, other pods and a Service; and requests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from cluster import manifests
from cluster.kubectl import Json, Kubectl, is_ready
from cluster.layout import Cluster
from cluster.life import Running
from cluster.manifests import HTTP_PORT
from cluster.waiting import until
from pycni.errors import PycniError
from pycni.lab import processes

NAMESPACE = "pycni-check"
POD_SECONDS = 90.0
END_SECONDS = 300.0
CURL_SECONDS = 5
WORDS = "these words were said in a pod"
REPLICAS = 2
"""Of the Deployment, for each node."""

FAILED = "failed"
FETCH_ALL = f"""for url in "$@"; do
    printf '%s %s\\n' "$url" "$(curl -g -s -f -m {CURL_SECONDS} "$url" || echo {FAILED})"
done"""
"""A script: what each URL answers, a line each."""

KNOCK = """n=0 bad=0
while [ ! -e /tmp/enough ]; do
    n=$((n + 1))
    curl -g -s -f -o /dev/null --connect-timeout 2 -m 5 "$1" || bad=$((bad + 1))
done
echo "$n $bad\""""
"""A script: requests, each on a connection of its own, until it is told that these are enough."""


@dataclass
class Scene:
    """The objects that checks have made, in a namespace of their own."""

    running: Running
    namespace: str = NAMESPACE
    servers: dict[str, Json] = field(default_factory=dict)
    """As the API shows them, by name: a-NODE and b-NODE on each node."""
    booted: set[str] = field(default_factory=set)
    """Names of nodes that have lost their power since."""

    @property
    def cluster(self) -> Cluster:
        return self.running.cluster

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.cluster, self.running.programs, self.namespace)

    @property
    def one_per_node(self) -> list[str]:
        """A server on each node."""
        return [name for name in self.servers if name.startswith("a-")]

    def addresses(self, server: str) -> list[str]:
        """IPv4 first. Raises PycniError if there is no such server: it never ran."""
        if server not in self.servers:
            raise PycniError(f"{server} does not run", hint="see why it never did")
        return [one["ip"] for one in self.servers[server]["status"]["podIPs"]]

    def urls(self, server: str) -> list[str]:
        """What a server answers with its name, IPv4 first."""
        return [hostname_url(address, HTTP_PORT) for address in self.addresses(server)]

    def wait_until_ready(self, pod: str) -> None:
        """Raises PycniError after POD_SECONDS."""
        until(lambda: self._is_ready(pod), f"{pod} is Ready", POD_SECONDS)

    def _is_ready(self, pod: str) -> bool:
        """A static pod may not be in the API yet."""
        done = self.kubectl.run("get", "pod", pod, "--output=json")
        return done.returncode == 0 and is_ready(json.loads(done.stdout))

    def node(self, server: str) -> str:
        name: str = self.servers[server]["spec"]["nodeName"]
        return name


def set_up(scene: Scene) -> None:
    """Make all objects; returns when servers and Deployment are ready. Raises PycniError."""
    kubectl = scene.kubectl
    make_namespace(scene)
    nodes = [node.name for node in scene.cluster.workers]
    servers = {
        f"{letter}-{node}": manifests.server(f"{letter}-{node}", node, host_port=host_port)
        for node in nodes
        for letter, host_port in (("a", manifests.HOST_PORT), ("b", None))
    }
    others = [
        *(manifests.probed(f"probed-{node}", node) for node in nodes),
        *(manifests.speaker(f"speaker-{node}", node, WORDS) for node in nodes),
    ]
    web = manifests.web(replicas=REPLICAS * len(nodes))
    kubectl.apply([*servers.values(), *others, *web])
    for name in servers:
        scene.wait_until_ready(name)
    scene.servers = {name: kubectl.get("pod", name) for name in servers}
    wait_for_rollout(scene)


def make_namespace(scene: Scene) -> None:
    """Returns when pods can be made in it. Raises PycniError."""
    scene.running.kubectl.apply([manifests.namespace(scene.namespace)])
    until(lambda: scene.kubectl.run("get", "serviceaccount", "default").returncode == 0,
          "the namespace has its service account", POD_SECONDS)  # fmt: skip


def tear_down(scene: Scene) -> None:
    """Delete the namespace, and wait until it is gone. Raises PycniError."""
    scene.running.kubectl("delete", "namespace", scene.namespace, "--wait", timeout=END_SECONDS)


def wait_for_rollout(scene: Scene) -> None:
    """Until the Deployment has all its pods. Raises PycniError."""
    scene.kubectl("rollout", "status", "deployment/web", f"--timeout={END_SECONDS:g}s",
                  timeout=END_SECONDS + 10)  # fmt: skip


def web_pods(scene: Scene) -> dict[str, str]:
    """The Deployment's pods, and the node of each; none has one before it is placed."""
    items = scene.kubectl.get("pods", "--selector=app=web")["items"]
    return {item["metadata"]["name"]: item["spec"].get("nodeName", "") for item in items}


def fetch(scene: Scene, pod: str, urls: list[str]) -> dict[str, str]:
    """What each URL answers a pod; FAILED if it does not, or why it could not be tried."""
    seconds = 10.0 + CURL_SECONDS * len(urls)
    try:
        said = scene.kubectl.execute(pod, "sh", "-c", FETCH_ALL, "sh", *urls, timeout=seconds)
    except PycniError as error:
        return dict.fromkeys(urls, f"{error.message}: {error.details}")
    answers = {
        url: answer for url, _, answer in (line.partition(" ") for line in said.splitlines())
    }
    return {url: answers.get(url, "no line of the script") for url in urls}


def start_knocking(scene: Scene, pod: str) -> processes.Kept:
    """Requests from a pod to the Service `web`, until `stop_knocking`."""
    log = scene.cluster.directory / f"knocking-{pod}.log"
    log.unlink(missing_ok=True)
    script = ("sh", "-c", KNOCK, "sh", "http://web/hostname")
    words = scene.kubectl.command("exec", pod, "--", *script)
    return processes.start(scene.cluster.control.netns, words, log=log)


def stop_knocking(scene: Scene, pod: str, knocking: processes.Kept) -> str:
    """How many requests there were, and how many of them failed."""
    scene.kubectl.execute(pod, "touch", "/tmp/enough")
    until(lambda: not knocking.alive, f"{pod} knocks no more", POD_SECONDS)
    return (scene.cluster.directory / f"knocking-{pod}.log").read_text().strip()


def hostname_url(host: str, port: int = 80) -> str:
    """What agnhost answers with its host's name; `host` is a name or an address."""
    return f"http://[{host}]:{port}/hostname" if ":" in host else f"http://{host}:{port}/hostname"
