# SPDX-License-Identifier: Apache-2.0
"""The step of pods on netkit pairs: where the kernel has them, and where it has not.

Raises like scenarios.py.
"""

from __future__ import annotations

import json
import time

from vm.cluster import TRANSFER, Cluster, bring_up, cross_both, reaches, same_node, upgrade, visible
from vm.node import PORT, Node
from vm.payload import PYTHON
from vm.qemu import GuestError

RATE = {f"{way}{what}": 100_000_000 for way in ("ingress", "egress") for what in ("Rate", "Burst")}
"""Bits (per second): more than emulation comes to."""
HOST_PORT = 18080
MAPPING = {"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}
RELEASED_SECONDS = 60.0


def netkit(cluster: Cluster) -> None:
    """Pods on netkit pairs: among each other, with one on a veth pair, the node, a limited one with
    a host port; other programs under traffic; CHECK and DEL. Where the kernel has none: refused,
    all of it."""
    if "netkit" in cluster.lacking:
        _refuses_netkit(cluster.a)
        return
    bring_up(cluster, again=True, device="netkit")
    same_node(cluster)
    cross_both(cluster)
    node, (pod, *_) = cluster.a, cluster.a.pods
    node.keys = {"device": "veth"}
    node.add("mixed")
    capabilities = {"bandwidth": RATE, "portMappings": [MAPPING]}
    node.keys = {"device": "auto", "tcx": True, "runtimeConfig": capabilities}
    node.add("limited")
    links = node.facts()["pods"]
    kinds = {pod: kind for pod, (_, kind) in links.items()}
    assert kinds == dict.fromkeys(node.pods, "netkit") | {"mixed": "veth"}, kinds
    for one, other in (("mixed", pod), (pod, "mixed"), ("limited", pod), (pod, "limited")):
        for address in node.pods[other]:
            reaches(node, one, node, address)
    assert node.echo_from_host([to for pod in node.pods for to in node.pods[pod]]) == {}
    _host_port(cluster, "limited")
    _queued(node, "limited", links["limited"][0], node.pods[pod])
    upgrade(cluster)
    for pod in list(node.pods):
        node.check(pod)
        node.delete(pod)
    for pod in list(cluster.b.pods):
        cluster.b.end_namespace(pod)
    for each in cluster.nodes:
        _wait_until_released(each)


def _host_port(cluster: Cluster, pod: str) -> None:
    """A pod of the other node reaches this one's at a port of the node."""
    node, (far, *_) = cluster.a, cluster.b.pods
    inside, at = node.pods[pod][0], (str(node.underlay.ip), HOST_PORT)
    sent, got = cluster.b.send(far, node, inside, TRANSFER, at=at)
    assert sent["bytes"] == got["bytes"] == TRANSFER, f"{at}: {sent}, {got}"


def _queued(node: Node, pod: str, link: str, addresses: list[str]) -> None:
    """A pod sends through the ingress qdisc that another has put on its host end, where else
    nothing comes in: netkit counts what it redirects as sent, but not as received."""
    node.guest.check(["tc", "qdisc", "add", "dev", link, "ingress"])
    node.check(pod)  # the endpoint is so now, if the agent has not been here before
    for address in addresses:
        reaches(node, pod, node, address)
    (shown,) = json.loads(node.guest.check(["ip", "-json", "-s", "link", "show", "dev", link]))
    assert shown["stats64"]["rx"]["bytes"] > len(addresses) * TRANSFER, shown


def _wait_until_released(node: Node) -> None:
    """No link and no address of a pod is left; the agent hears of links that end by themselves."""
    end = time.monotonic() + RELEASED_SECONDS
    listing = [PYTHON, "-m", "pycni", "endpoints", "-ojson"]
    while json.loads(left := node.guest.check(listing)):
        assert time.monotonic() < end, left
    assert node.facts()["pods"] == {}


def _refuses_netkit(node: Node) -> None:
    """The error names what is missing and what to do, and nothing is left of the attempt."""
    before = visible(node)
    node.keys = {"device": "netkit"}
    said = "a pod"
    try:
        node.add("none")
    except GuestError as error:
        said = str(error)
    assert "CONFIG_NETKIT" in said, said
    node.guest.check(["ip", "netns", "del", "none"])
    assert visible(node) == before
