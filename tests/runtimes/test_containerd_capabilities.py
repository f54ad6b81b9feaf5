# SPDX-License-Identifier: Apache-2.0
"""What a pod's specification asks of the plugin through containerd: host ports and bandwidth.

containerd spells the keys as Go does (HostPort, IngressRate) and gives a burst of nearly 2**32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from pycni.cni.requests import IPS_ANNOTATION, MAC_ANNOTATION
from pycni.lab.cluster import Lab
from pycni.node.record import Node
from pycni.settings import load
from runtimes.containerd import Containerd, sandbox
from runtimes.messages import TCP, UDP
from support.flows import EVERY_ADDRESS, answering, ask, throughput

PROTOCOLS = {"tcp": TCP, "udp": UDP}
PORT, HOST_PORT = 8080, 18080
MAC = "02:00:00:00:00:2a"

MEGABIT = 10**6
RATE = 20.0
"""Mbit/s."""
TOLERANCE = 0.1
SECONDS = 2.5

Gone = Callable[[], None]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_host_port_is_reached_from_everywhere_until_the_pod_stops(
    cluster: Lab, first_node: Containerd, all_gone: Gone, protocol: str
) -> None:
    with sandbox(first_node) as neighbour, sandbox(first_node, port(first_node, protocol)) as pod:
        pod_netns = str(first_node.cri.netns(pod))
        places = {
            "the world": cluster.layout.underlay_netns,
            "the node": first_node.node.netns,
            "another node": cluster.layout.nodes[1].netns,
            "another pod": str(first_node.cri.netns(neighbour)),
            "the pod": pod_netns,
        }
        unreached = [
            f"from {place} by {address.ip}"
            for address in first_node.node.underlay
            for place, netns in places.items()
            if not reached(pod_netns, address, protocol=protocol, source=netns)
        ]

    assert unreached == []
    assert silent(cluster, first_node.node.underlay, protocol)
    all_gone()


def test_a_host_port_follows_the_pod_that_succeeds_another(
    cluster: Lab, first_node: Containerd, all_gone: Gone
) -> None:
    for _ in range(2):
        with sandbox(first_node, port(first_node, "tcp")) as pod:
            assert reached(
                str(first_node.cri.netns(pod)),
                first_node.node.underlay[0],
                protocol="tcp",
                source=cluster.layout.underlay_netns,
            )

    all_gone()


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_the_bandwidth_annotation_limits_one_direction_only(
    first_node: Containerd, all_gone: Gone, direction: str
) -> None:
    limited = first_node.cri.pod(
        annotations={f"kubernetes.io/{direction}-bandwidth": f"{RATE:.0f}M"}
    )
    with sandbox(first_node, limited) as pod, sandbox(first_node) as other:
        netns = {one: str(first_node.cri.netns(one)) for one in (pod, other)}
        address = {one: first_node.cri.addresses(one)[0] for one in (pod, other)}
        slow, fast = ((other, pod), (pod, other))[:: 1 if direction == "ingress" else -1]

        at_last = throughput(
            netns[slow[0]], netns[slow[1]], address[slow[1]], "tcp",
            seconds=SECONDS, after=0.6 * SECONDS,
        )  # fmt: skip
        unlimited = throughput(netns[fast[0]], netns[fast[1]], address[fast[1]], "tcp", seconds=0.5)

    assert at_last == pytest.approx(RATE * MEGABIT, rel=TOLERANCE)
    assert unlimited > 2 * RATE * MEGABIT
    all_gone()


def test_a_pod_has_the_addresses_and_the_mac_it_is_annotated_with(
    first_node: Containerd, all_gone: Gone
) -> None:
    network = Node.load(load(first_node.node.settings_path)).pod_cidrs
    wanted = [str(one[200]) for one in network]
    annotations = {IPS_ANNOTATION: ",".join(wanted), MAC_ANNOTATION: MAC}

    with sandbox(first_node, first_node.cri.pod(annotations=annotations)) as pod:
        addresses = first_node.cri.addresses(pod)
        mac = first_node.mac(pod)

    assert sorted(addresses) == sorted(wanted)
    assert mac == MAC
    all_gone()


def port(node: Containerd, protocol: str) -> object:
    """A pod with one host port."""
    mapping = {"protocol": PROTOCOLS[protocol], "container_port": PORT, "host_port": HOST_PORT}
    return node.cri.pod(ports=[mapping])


def reached(
    pod_netns: str,
    address: IPv4Interface | IPv6Interface,
    *,
    protocol: str,
    source: str,
) -> bool:
    """Whether a server in the pod answers at the host port."""
    with answering(pod_netns, EVERY_ADDRESS[address.version], PORT, protocol=protocol):
        return ask(source, str(address.ip), HOST_PORT, protocol=protocol) is not None


def silent(cluster: Lab, addresses: Sequence[IPv4Interface | IPv6Interface], protocol: str) -> bool:
    """Whether nobody answers at the host port."""
    world = cluster.layout.underlay_netns
    return all(ask(world, str(one.ip), HOST_PORT, protocol=protocol) is None for one in addresses)
