# SPDX-License-Identifier: Apache-2.0
"""The traffic of a chaos run: questions on every way that pycni carries, all the time.

Each pod asks a pod of the next node, the next node itself, its own node and the world. Each node
asks a pod of the next node. The world asks each node's host port, behind which a pod answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

from pycni.lab.cluster import Lab
from pycni.lab.layout import WORLD, LabNode, Pod
from support.asking import Flow, Traffic, reflecting
from support.plugin import execute

PORT, HOST_PORT = 7000, 17000


@contextmanager
def flowing(lab: Lab) -> Iterator[Traffic]:
    """Traffic on every way, between the first pods of all nodes; ends with the `with`."""
    traffic = Traffic()
    nodes = lab.layout.nodes
    with ExitStack() as stack:
        for netns, addresses in _places(lab):
            stack.enter_context(reflecting(netns, PORT, addresses))
        for node, following in zip(nodes, (*nodes[1:], nodes[0]), strict=True):
            traffic.start(node.pods[0].netns, list(_from_pod(lab, node, following)), stack)
            traffic.start(node.netns, list(_from_host(lab, node, following)), stack)
        traffic.start(lab.layout.underlay_netns, list(_from_world(lab)), stack)
        yield traffic


def open_host_port(lab: Lab, pod: Pod) -> None:
    """Attach a pod whose node's HOST_PORT leads to it."""
    mapping = {"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "udp"}
    reply = execute(lab, pod, "ADD", runtimeConfig={"portMappings": [mapping]})
    assert reply.status == 0, reply.text
    lab.results[pod.name] = reply.document
    lab.save()


def _places(lab: Lab) -> Iterator[tuple[str, list[str]]]:
    """Every namespace that is asked, and its addresses."""
    for pod in lab.layout.pods:
        yield pod.netns, lab.addresses(pod)
    for node in lab.layout.nodes:
        yield node.netns, [str(interface.ip) for interface in node.underlay]
    yield lab.layout.underlay_netns, [str(address) for address in WORLD]


def _from_pod(lab: Lab, node: LabNode, following: LabNode) -> Iterator[Flow]:
    both = frozenset((node.name, following.name))
    for address in lab.addresses(following.pods[0]):
        yield Flow("pod to pod of another node", both, f"{address},{PORT}")
    for interface in following.underlay:
        yield Flow("pod to another node", both, f"{interface.ip},{PORT}")
    for address in lab.addresses(node.pods[1]):
        yield Flow("pod to pod of its node", frozenset((node.name,)), f"{address},{PORT}")
    for interface in node.underlay:
        yield Flow("pod to its node", frozenset((node.name,)), f"{interface.ip},{PORT}")
    for world in WORLD:
        yield Flow("pod to world", frozenset((node.name,)), f"{world},{PORT}")


def _from_host(lab: Lab, node: LabNode, following: LabNode) -> Iterator[Flow]:
    both = frozenset((node.name, following.name))
    for address in lab.addresses(following.pods[0]):
        yield Flow("host to pod of another node", both, f"{address},{PORT}")
    for address in lab.addresses(node.pods[0]):
        yield Flow("host to its pod", frozenset((node.name,)), f"{address},{PORT}")


def _from_world(lab: Lab) -> Iterator[Flow]:
    for node in lab.layout.nodes:
        for interface in node.underlay:
            if ip_address(interface.ip).version == 4:  # the world's IPv6 source is not the uplink's
                yield Flow("world to host port", frozenset((node.name,)),
                           f"{interface.ip},{HOST_PORT}")  # fmt: skip
