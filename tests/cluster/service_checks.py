# SPDX-License-Identifier: Apache-2.0
"""Checks of what stands before pods: Services, their names, host ports; and of their updates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from cluster.layout import DNS_DOMAIN, DNS_SERVICE, addresses
from cluster.manifests import HOST_PORT
from cluster.scene import (
    CURL_SECONDS,
    NAMESPACE,
    POD_SECONDS,
    Scene,
    fetch,
    hostname_url,
    start_knocking,
    stop_knocking,
    wait_for_rollout,
    web_pods,
)
from cluster.verdicts import Found, one
from cluster.waiting import until
from pycni.lab import processes
from pycni.lab.checks import Check

WEB_NAME = f"web.{NAMESPACE}.svc.{DNS_DOMAIN}"
DNS_PROTOCOLS = {"UDP": "+notcp", "TCP": "+tcp"}
"""Options of dig(1)."""
REQUESTS = 20
"""Enough to come to pods on each of two nodes, but for once in 500,000 times."""


def services(scene: Scene) -> Iterator[Check]:
    """A Service leads pods on each node to pods on all, and a client outside by node port."""
    service = scene.kubectl.get("service", "web")["spec"]
    nodes = web_pods(scene)
    for source in scene.one_per_node:
        for address in service["clusterIPs"]:
            urls = [f"{hostname_url(address)}?{number}" for number in range(REQUESTS)]
            found = lacking(nodes, set(fetch(scene, source, urls).values()))
            yield Check(f"{source} -> ClusterIP {address}", not found, found)
    port = service["ports"][0]["nodePort"]
    for node in scene.cluster.workers:
        for address in addresses(node):
            name = f"client -> {node.name} NodePort {address}"
            yield one(name, partial(_from_outside, scene, hostname_url(address, port)))


def names(scene: Scene) -> Iterator[Check]:
    """The cluster's DNS, from a pod on each node: Services' names, short and long, UDP and TCP."""
    for source in scene.one_per_node:
        for name in ("web", WEB_NAME):
            (answer,) = fetch(scene, source, [hostname_url(name)]).values()
            yield Check(f"{source} -> DNS {name}", _is_web(answer), answer)
        for protocol, option in DNS_PROTOCOLS.items():
            name = f"{source} -> DNS server by {protocol}"
            yield one(name, partial(_is_told_address, scene, source, option))
        name = "kubernetes.default"
        yield one(f"{source} -> DNS {name}", partial(_resolves, scene, source, name))


def host_ports(scene: Scene) -> Iterator[Check]:
    """A pod answers at its node's addresses, from outside and from a pod on each node."""
    for server in scene.one_per_node:
        node = scene.cluster.layout.node(scene.node(server))
        urls = {hostname_url(address, HOST_PORT): address for address in addresses(node)}
        for url, address in urls.items():
            name = f"client -> {node.name} host port {address}"
            yield one(name, partial(_is_answered_outside, scene, url, server))
        for source in scene.servers:
            for url, answer in fetch(scene, source, list(urls)).items():
                name = f"{source} -> {node.name} host port {urls[url]}"
                yield Check(name, answer == server, answer)


def rolling_update(scene: Scene) -> Iterator[Check]:
    """A Deployment gets other pods while clients on each node make requests; none is lost."""
    begun = {source: start_knocking(scene, source) for source in scene.one_per_node}
    yield one("a rolling update ends", partial(_roll, scene))
    for source, knocking in begun.items():
        name = f"no request of {source} is lost meanwhile"
        yield one(name, partial(_none_lost, scene, source, knocking))


def _is_web(answer: str) -> bool:
    """Whether that is the name of one of the Deployment's pods."""
    return answer.startswith("web-")


def _from_outside(scene: Scene, url: str) -> Found:
    answer = _ask_outside(scene, url)
    return None if _is_web(answer) else answer


def lacking(nodes: dict[str, str], answers: set[str]) -> str:
    """What is wrong with answers of a Service: from no pod of it, or none from a node's pods."""
    strange = sorted(answers - nodes.keys())
    missing = sorted(set(nodes.values()) - {nodes[one] for one in answers & nodes.keys()})
    return "; ".join([*strange, *(f"no answer from {node}" for node in missing)])


def _ask_outside(scene: Scene, url: str) -> str:
    """What a URL answers the client outside of the cluster; curl's status if nothing."""
    request = ["curl", "-g", "-s", "-f", "-m", str(CURL_SECONDS), url]
    done = processes.run(scene.cluster.client.netns, request)
    return done.stdout.decode(errors="replace") or f"curl's status is {done.returncode}"


def _is_told_address(scene: Scene, pod: str, option: str) -> Found:
    """Whether the DNS server tells the IPv4 address of the Service `web`."""
    wanted: str = scene.kubectl.get("service", "web")["spec"]["clusterIP"]
    question = ("+short", "+time=2", "+tries=2", option, f"@{DNS_SERVICE}", WEB_NAME)
    said = scene.kubectl.execute(pod, "dig", *question)
    return None if said.split() == [wanted] else f"not {wanted}: {said!r}"


def _resolves(scene: Scene, pod: str, name: str) -> Found:
    return None if scene.kubectl.execute(pod, "getent", "hosts", name) else "no address"


def _is_answered_outside(scene: Scene, url: str, name: str) -> Found:
    answer = _ask_outside(scene, url)
    return None if answer == name else answer


def _roll(scene: Scene) -> Found:
    before = set(web_pods(scene))
    scene.kubectl("rollout", "restart", "deployment/web")
    wait_for_rollout(scene)
    until(lambda: before.isdisjoint(web_pods(scene)), "the old pods are gone", POD_SECONDS)
    time.sleep(1.0)  # some more requests, to new pods only
    return None


def _none_lost(scene: Scene, pod: str, knocking: processes.Kept) -> Found:
    said = stop_knocking(scene, pod, knocking)
    count, _, lost = said.partition(" ")
    return None if count.isdigit() and int(count) and lost == "0" else f"requests, lost: {said!r}"
